// Package broker is the privileged process beside a worker: it does what the worker,
// which has gone into its sandbox, cannot do itself, and what must not happen in the
// worker's memory.
//
//	worker (sealblk export)                 broker (its child)
//	  Decrypt   wrapped key, context   →      asks the KMS
//	            data key               ←      through a pipe of its own, and wipes it
//	  Seal      files and names        →      notes them; decrypts nothing any more
//	  … goes into the sandbox, serves …
//	  Show                             →      puts the disk's names on the worker's files
//	  Finish                           →      removes the files and names
//	  … ends …                                ends with it
//
// So the root key of the embedded KMS, a CMK or a credential is never in the address
// space of the process that a guest talks to; and a worker that was broken into can
// neither unwrap another disk's key nor remove other files than its own.
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
