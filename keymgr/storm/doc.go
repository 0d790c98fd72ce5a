// Package storm simulates hosts that power on together and have all their disks' data
// keys unwrapped by one KMS.
//
// # Contract
//
// What calls the KMS is the code that the product runs: a [keymgr.Set] per host with
// the retry policy of [keymgr.PatientRetry]. What answers is [simulated.KMS]: a rate
// limit, a latency, lost connections, an outage. Time is virtual, so that a site's
// quarter of an hour takes seconds, and a seed makes a run repeat.
//
// A host begins to start its disks at a moment of its own within Scenario.Spread of the
// power coming back, as machines do not boot in step, and starts them one after the
// other, Scenario.Stagger apart: a process for each disk.
//
// Each disk has a blob of its own, so that nothing is gained by coalescing.
package storm
