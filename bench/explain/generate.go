package explain

//go:generate ../../scripts/bpf2go collector bpf/collector.c
