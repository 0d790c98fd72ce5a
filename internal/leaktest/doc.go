// Package leaktest is what every package's TestMain ends with: it fails a test
// binary that leaves goroutines or file descriptors behind.
//
//	func TestMain(m *testing.M) { leaktest.Main(m) }
//
// The descriptors that are open before the first test and those of the Go
// runtime's poller are no leak. A descriptor counts as the same one as before only
// if both its number and what it refers to are unchanged. The processes that `go
// test -fuzz` starts are not examined: the fuzzing engine keeps pipes and
// goroutines of its own in them until they exit.
//
// Tool and Missing are the one way to state that a test needs something the
// machine may lack: without it the test is skipped with the reason, or fails
// where the environment says CI=true, so that nothing is skipped there unseen.
// Elsewhere is for what no machine of CI has, and a test in a guest does instead.
package leaktest
