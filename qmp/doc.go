// Package qmp talks to a running QEMU over its machine protocol, and plugs
// vhost-user-blk disks into it and out of it.
//
// # Transport
//
// Monitor is one connection to a QMP server. It implements the Monitor interface
// of github.com/digitalocean/go-qemu/qmp, so the commands of that module's raw
// package run over it, and adds Execute, which takes a context.
//
// Any number of goroutines may use a Monitor. Every command carries an id, so
// replies find their callers whatever comes between them. A message may have any
// size up to MaxMessage. Events never hold up a reply: each subscriber has a queue
// of EventQueue events; when it is full the oldest event is dropped and counted
// (Monitor.Dropped). A connection that ends for any reason fails all commands that
// wait, with ErrConnectionLost and the reason, and closes all event channels.
// One goroutine reads each connection; Disconnect waits for its end.
//
// A command whose context ends is not taken back: QEMU may still run it. Its reply
// is then ignored.
//
// # Hot-plug
//
// Attach plugs a disk, Detach unplugs it. Both need only an Executor, work on a
// guest that runs, and bound their time (DefaultTimeout if the context has no
// deadline), as do Attached and Migrated. Attach changes nothing until it has found that the guest's memory is
// shared, that a slot is free, that the id is free and that the back-end answers.
// From then on a failure, a cancelled context included, removes what was added; if
// the connection is lost in the middle a new one is made to do so. Only a guest
// that keeps hold of the device can prevent that, and the error then wraps
// ErrGuestHolds, or a QEMU that does not answer; in both cases it wraps
// ErrNotRolledBack. Detach may be repeated until it succeeds: what is gone already is
// no error.
//
// An error is one line that says what failed, why, and what to do. Where there is
// something to do, a `Hint() string` method found with errors.As has it alone.
//
// # Sources
//
// QEMU, docs/interop/qmp-spec: 2.2 server greeting, 2.3 issuing commands (ids), 2.4
// command responses, 2.5 asynchronous events, 4 capabilities negotiation. QEMU QMP
// reference: chardev-add, chardev-remove, device_add, device_del, DEVICE_DELETED,
// DEVICE_UNPLUG_GUEST_ERROR, query-memdev, qom-list, qom-get, query-qmp-schema.
// QEMU, docs/interop/vhost-user: header and VHOST_USER_GET_FEATURES.
package qmp
