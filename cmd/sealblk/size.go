package main

import (
	"math"
	"strconv"
	"strings"
)

// parseSize reads a SIZE: a whole number of bytes, or one with a suffix K, M, G, T or
// P for a power of 1024, in either case.
func parseSize(s string) (int64, error) {
	digits, shift := s, 0
	if n := len(s); n > 0 {
		if i := strings.IndexByte("KMGTP", s[n-1]&^0x20); i >= 0 {
			digits, shift = s[:n-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n == 0 || n > math.MaxInt64>>shift {
		return 0, usagef("size %q: give a whole number of bytes, or one with K, M, G, T or P (powers of 1024), such as 512M or 20G", s)
	}
	return int64(n) << shift, nil
}
