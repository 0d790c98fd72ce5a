// Package blockdevtest tells whether a block device keeps the contract of package
// blockdev. Every device and every layer passes [Run].
//
// [Driver] runs requests on a queue and checks the queue's side of the contract at
// every step; [Scatter] is memory in pieces, as a guest hands it over; [Fault] is
// a device for the tests of layers: it reorders, delays, fails and cuts short the
// requests to a healthy device below it, and shows them to the test.
//
// Run counts descriptors, goroutines and allocations of the process: tests that
// use it do not run in parallel with others.
package blockdevtest
