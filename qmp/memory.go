package qmp

import (
	"context"
	"fmt"
	"strings"

	"github.com/digitalocean/go-qemu/qmp/raw"
)

const hintLibvirt = "in libvirt <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"

// firstSharedRAM is the major version of QEMU since which memory-backend-ram with
// share=on has a file behind it; before, it was anonymous memory.
const firstSharedRAM = 10

// memdev is a memory backend as query-memdev tells it.
type memdev struct {
	ID    string `json:"id"`
	Size  uint64 `json:"size"`
	Share bool   `json:"share"`
}

// checkMemory fails unless a back-end can map all of the guest's memory: every
// memory backend in use must be shared and have a file descriptor to pass on.
func checkMemory(ctx context.Context, mon Executor) error {
	main, err := qom{mon}.optional(ctx, pathMachine, "memory-backend")
	if err != nil {
		return fmt.Errorf("check guest memory: %w", err)
	}
	main = strings.TrimPrefix(main, pathObjects+"/")
	used, err := usedMemdevs(ctx, mon, main)
	if err != nil {
		return fmt.Errorf("check guest memory: %w", err)
	}
	if len(used) == 0 {
		return fail(ErrMemoryNotShared, mendMain("SIZE"), "QEMU names no memory backend")
	}
	for _, m := range used {
		flaw, err := findFlaw(ctx, mon, m)
		if err != nil {
			return fmt.Errorf("check guest memory: %w", err)
		}
		if flaw != "" {
			return fail(ErrMemoryNotShared, m.mend(main), "memory backend %q %s", m.ID, flaw)
		}
	}
	return nil
}

// usedMemdevs leaves out backends that were defined but that no memory of the
// guest comes from. When it cannot tell it keeps them.
func usedMemdevs(ctx context.Context, mon Executor, main string) ([]memdev, error) {
	var all, used []memdev
	if err := mon.Execute(ctx, "query-memdev", nil, &all); err != nil {
		return nil, err
	}
	for _, m := range all {
		in := m.ID == "" || m.ID == main
		if !in {
			var err error
			if in, err = isMapped(ctx, mon, m.ID); err != nil {
				return nil, err
			}
		}
		if in {
			used = append(used, m)
		}
	}
	if len(used) == 0 {
		return all, nil
	}
	return used, nil
}

// isMapped tells whether a backend's memory region is part of a larger one, as
// that of a NUMA node or of a DIMM is.
func isMapped(ctx context.Context, mon Executor, id string) (bool, error) {
	region := fmt.Sprintf("%s/%s/%s[0]", pathObjects, id, id)
	container, err := qom{mon}.text(ctx, region, "container")
	if refused(err) {
		return true, nil
	}
	return container != "", err
}

// findFlaw tells what keeps a backend's memory from being shared, if anything.
func findFlaw(ctx context.Context, mon Executor, m memdev) (string, error) {
	if !m.Share {
		return "has share=off", nil
	}
	if m.ID == "" {
		return "", nil
	}
	typ, err := qom{mon}.optional(ctx, pathObjects+"/"+m.ID, "type")
	if err != nil || typ != "memory-backend-ram" {
		return "", err
	}
	var v raw.VersionInfo
	if err := mon.Execute(ctx, "query-version", nil, &v); err != nil || v.Qemu.Major >= firstSharedRAM {
		return "", err
	}
	return "is a memory-backend-ram, which has no file to share", nil
}

// mend says how to start the machine with this backend shared.
func (m memdev) mend(main string) string {
	if m.ID == "" || m.ID == main {
		return mendMain(formatSize(m.Size))
	}
	return fmt.Sprintf("start QEMU with -object memory-backend-memfd,id=%s,size=%s,share=on in its place, or %s",
		m.ID, formatSize(m.Size), hintLibvirt)
}

func mendMain(size string) string {
	return "start QEMU with -object memory-backend-memfd,id=mem,size=" + size +
		",share=on -machine memory-backend=mem, or " + hintLibvirt
}

// formatSize writes bytes as QEMU's command line takes them.
func formatSize(n uint64) string {
	for _, u := range []struct {
		suffix string
		shift  uint
	}{{"G", 30}, {"M", 20}, {"K", 10}} {
		if n != 0 && n&(1<<u.shift-1) == 0 {
			return fmt.Sprintf("%d%s", n>>u.shift, u.suffix)
		}
	}
	return fmt.Sprint(n)
}
