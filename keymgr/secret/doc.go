// Package secret holds key material in memory that is locked, guarded, left out of
// core dumps and of forked children, and wiped when it is destroyed.
package secret
