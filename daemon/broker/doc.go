// Package broker is the privileged process beside a worker: it does what the worker,
// which has gone into its sandbox, cannot do itself, and what must not happen in the
// worker's memory.
//
//	worker (sealblk export)                 broker (its child)
//	  Decrypt   wrapped key, context   →      asks the KMS
//	            data key               ←      through a pipe of its own, and wipes it
//	  Seal      files and names        →      notes them; decrypts this disk's key only
//	  … goes into the sandbox …
//	  Watch                            →      looks at the disk's key from now on
//	            usable, or why not     ←      and at each change, through another pipe
//	  … serves; wipes the key, if the disk wants that when its CMK is lost …
//	  Decrypt   as the first time      →      asks the KMS, for this disk only
//	  Show                             →      puts the disk's names on the worker's files
//	  Finish                           →      removes the files and names
//	  … ends …                                ends with it
//
// So the root key of the embedded KMS, a CMK or a credential is never in the address
// space of the process that a guest talks to; and a worker that was broken into can
// neither unwrap another disk's key nor remove other files than its own.
//
// # After the seal
//
// A sealed broker unwraps under the encryption context that it unwrapped under before, and
// no other; it names the disk, and a KMS opens no wrapped key under another context than
// its own. The CMK is that of before, or the one that the disk's record names now, if it
// was wrapped anew: the record is not in the worker's reach, as the disk's header is. So
// what comes out is the data key that the worker had, or nothing; and nothing once the CMK
// is disabled. It asks at most once a second.
//
// # The watch
//
// What is told is the state of the disk's own key, and only that. A CMK is lost when it is
// disabled, to be deleted, without material, not there, or closed to the disk service. A
// KMS that does not answer, is throttled or is damaged says nothing of the key, nor does
// one that does not take this host's credentials: that is told too, as no loss. A caller
// whom the KMS refuses to tell the state of a key from the start knows nothing of it; one
// who could see it, and is refused since, has lost it.
//
// Where a KMS may revoke one version of a key, that which wraps the disk counts; the disk's
// header names it. A worker that writes another one there gets a wrong answer, and no key.
//
// A KMS that is [keymgr.Watchable] is looked at twice a second, by its stamp, which costs a
// system call; the state is asked for when the stamp has changed, and now and then for what
// time alone changes. Others are asked every Options.Interval, give or take half of it; a
// fortieth as often if nothing follows from the loss of the key, and down to a sixteenth
// while they throttle.
// None of the looks at the embedded KMS is recorded there: see keymgr/local.
//
// # Which of the two dies first
//
// The worker is the process that users, scripts and service managers know as the
// export: its pid, its signals and its exit code are the export's. It does not need
// the broker to serve: when the broker is killed the worker goes on, and its socket
// files stay behind at its end, which the next export replaces. When the worker ends,
// however it ends, the broker reads the end of its socket and exits. It holds neither
// the disk's lock nor its file nor its sockets, so a worker that was killed can be
// started again at once; nor does it remove files then, which could be the next
// worker's already. SIGINT, SIGTERM and SIGHUP, which service managers and terminals
// send to every process of a group, are the worker's to answer; the broker ignores
// them.
//
// # Threading
//
// Methods of [Client] may be called from any goroutine; they take turns. [Serve]
// handles one request at a time.
//
// # Failure
//
// A KMS's error keeps its text, code, hint and the sentinels of package keymgr on its
// way. When the broker has gone, calls fail with [ErrGone].
package broker
