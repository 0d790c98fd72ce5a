// Package eventfd is an eventfd with an owner: one side signals, the other sleeps
// on the descriptor and clears it.
//
// Signal may be called from any goroutine. Clear is for the one that waits. Close
// is for the owner, when nobody signals any more. The system calls never block, so
// they do not go through the scheduler. See eventfd(2).
package eventfd
