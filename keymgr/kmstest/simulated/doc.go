// Package simulated is a KMS in memory, for tests and for simulations: it keeps the
// rules of every [keymgr.KMS], and has the faults of a service on a network, as many as
// it is told to have.
//
// # Contract
//
// A [KMS] holds keys with versions. Its client has a time-out; its server takes so many
// calls a second (a token bucket, refilled evenly) and answers after a latency.
// Connections are lost by chance, before the server did its work or after; an outage
// refuses all calls for a time. [KMS.Disable] and its like are the administration of a
// test.
//
// Time is real or a [Clock]: virtual time, which passes when everybody waits. The same
// options and seed give the same run on a Clock.
//
// [KMS.Load] tells what arrived at the server in each second.
//
// # Secrets
//
// Keys of a simulation protect nothing: they are on the Go heap. Data keys that are
// handed out are in locked memory, as callers expect.
//
// # Threading
//
// A KMS may be used from any goroutine. For a Clock see there.
package simulated
