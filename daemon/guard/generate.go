package guard

//go:generate ../../scripts/bpf2go guard bpf/guard.c
