// Package conformance holds a vhost-user-blk back-end to the specification. It runs
// against any socket: it knows nothing of the implementation behind it.
//
// [Run] runs every [Case] on a back-end of its own. A case is named after the rule
// that it checks and cites its source. Each one ends with a plain session that
// writes and reads back, because a back-end has to serve the next front-end
// whatever the last one did.
//
// [Attack] turns any bytes into a sequence of hostile operations, messages as well
// as writes into the rings, and runs it; a fuzz target and a test with random
// programs are made of it.
//
// Sources: "vhost-user" is QEMU docs/interop/vhost-user.rst, "virtio" is Virtual
// I/O Device (VIRTIO) Version 1.3.
package conformance
