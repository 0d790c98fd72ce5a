// Package storm simulates hosts that power on together and have all their disks' data
// keys unwrapped by one KMS.
//
// # Contract
//
// What calls the KMS is the code that the product runs: a [keymgr.Set] with the retry
// policy of [keymgr.PatientRetry], and a gate with the places of [keymgr.FileGate]. What
// answers is [simulated.KMS]: a rate
// limit, a latency, lost connections, an outage. Time is virtual, so that a site's
// quarter of an hour takes seconds, and a seed makes a run repeat.
//
// A host begins to start its disks at a moment of its own within Scenario.Spread of the
// power coming back, as machines do not boot in step, and starts them one after the
// other, Scenario.Stagger apart: a process for each disk.
//
// Each disk has a blob of its own, so that nothing is gained by coalescing.
//
// Three things are simpler than in the product. A host's disks share a Set instead of
// having a process each. They go through the gate in the order in which they came; locked
// files are handed on in an order that is nearly that. A disk takes one call of the KMS;
// package vault makes a second one, to look at the key, in every process.
package storm
