// Package workload measures what encryption costs the programs of a real guest: fio on
// the raw disk, a file system, and a database, on a plain disk and on an encrypted one.
//
// # Contract
//
// [Run] takes rounds. In each, two servers are started on new data of the same size and
// kind, one of them encrypting, their devices are filled, and a guest boots with both as
// disks; then each job runs on the one and on the other before the next job begins, and
// all jobs some times over, with the other disk first each time. Results are rates, so
// more is better. A round counts as the medians of its repeats; the ratio of a
// job is encrypted to plain, of the medians, with the least and the largest of a round.
//
// [Agree] runs fio in a guest and package bench on one and the same server, in turn, and
// compares what they measure. The server is a build with the portable cipher, which is
// slow enough that a guest can keep it busy even when its CPU is emulated. Where it
// cannot, which a fast build of the server shows, a row is not judged.
//
// # What the numbers mean
//
// Where QEMU emulates the guest's CPU everything in the guest takes many times longer
// than it should: only ratios mean anything, and they are nearer to 1 than with KVM.
//
// # Failure model
//
// A job that fails, or has no result, ends the run with an error. Servers, guests and
// files are gone when Run or Agree returns.
package workload
