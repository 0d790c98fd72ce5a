// Package kmstest is the conformance suite of KMSs: what everything that calls itself a
// [keymgr.KMS] does, tried on the real thing or on the best stand-in there is.
//
// # Contract
//
// A package that implements a KMS has one test that calls [Run] with a function which
// makes a [Subject]: the KMS as the disk service uses it, a way to make keys, and what
// else can be done to it from outside: disable a key, rotate it, break the connection.
// Each case gets a subject of its own; the function may share a server among them.
//
// Something that a KMS cannot do is declared in Subject.Lacks with the reason. A
// function that is missing without one fails the suite, and so does a reason for what
// is there. A KMS that is a [keymgr.Wrapper] is tried as one. A case that cannot run is
// skipped with that reason, and Run ends with a list of them.
//
// Through all cases the suite watches every call: a call that fails returns no key and
// no wrapped key; its error is one line, says how to go on ([keymgr.Error] with a
// hint), and holds no byte of any data key that the case has seen, in any of the usual
// notations.
//
// A client must not retry by itself what [keymgr.Retry] retries: a throttled call is
// ErrThrottled at once, a lost connection ErrUnreachable, or the two policies multiply.
//
// The tests that a KMS has besides share what they need: [Main], which looks for secrets
// that were not destroyed, [Generate], [WantOpens], [WantError], [Authority] for
// certificates.
//
// [Proxy] is a connection that can be broken and held up. Package simulated is a KMS in
// memory with a rate limit, latency and faults, on real or virtual time.
//
// # Threading
//
// Cases run one after the other.
package kmstest
