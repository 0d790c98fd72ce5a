package main

import "testing"

func TestParseSize(t *testing.T) {
	good := map[string]int64{
		"512": 512, "1k": 1 << 10, "512M": 512 << 20, "20G": 20 << 30, "20g": 20 << 30, "1T": 1 << 40, "8191P": 8191 << 50,
	}
	for in, want := range good {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "-1", "1.5G", "G", "1GB", "1 G", "0x10", "8192P", "9223372036854775808", "99999999999999999999T"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("%q: accepted as %d", in, got)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{512: "512B", 1 << 20: "1M", 20 << 30: "20G", 1536 << 20: "1536M", 1 << 40: "1T"} {
		if got := formatSize(n); got != want {
			t.Errorf("%d: %s; want %s", n, got, want)
		}
	}
}
