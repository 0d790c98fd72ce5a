// Package spin is for loops that wait for another processor without sleeping.
package spin
