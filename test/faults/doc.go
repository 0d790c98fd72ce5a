// Package faults tests the whole data path, from a driver's ring to the medium, over
// media that fail: what a guest may see when requests below fail, are torn, late or
// stuck, and what is left when the power fails at any moment.
//
// The properties are tried -rapid.checks times, by default few.
package faults
