package sandbox

import (
	"fmt"
	"os"

	seccomp "github.com/elastic/go-seccomp-bpf"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// Probe tells what a worker that is started now would get, without changing anything.
func Probe(p Policy) (Report, error) {
	who, err := lookup(p.User)
	if err != nil {
		return nil, err
	}
	r := Report{off(LayerNetwork, errNotRoot), on(LayerUser, fmt.Sprintf("uid %d, as it is started", os.Geteuid()))}
	if isRoot() {
		r[0] = on(LayerNetwork, "a network namespace of its own")
		r[1] = on(LayerUser, fmt.Sprintf("%s, uid %d", who.name, who.uid))
	}
	if _, err := os.Stat("/proc/self/ns/net"); err != nil && isRoot() {
		r[0] = off(LayerNetwork, err)
	}
	return append(r, probeLandlock(), probeSeccomp()), nil
}

func probeLandlock() Layer {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		return off(LayerLandlock, errNoLandlock)
	}
	return on(LayerLandlock, fmt.Sprintf("ABI %d", abi))
}

func probeSeccomp() Layer {
	if !seccomp.Supported() {
		return off(LayerSeccomp, errNoSeccomp)
	}
	return on(LayerSeccomp, "filters are available")
}
