// Package speed measures operations against each other on a machine that others
// use too: each sample of one is taken close to a sample of every other, and what
// is compared are medians of ratios, not ratios of single numbers. It is for the
// speed table of package cipher.
package speed
