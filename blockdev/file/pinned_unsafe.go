package file

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"sealblk/internal/uring"
)

// pinned is memory that the kernel holds on to for a ring, so that it need not do so for
// each request.
type pinned []unix.Iovec

// pin registers memory with a ring, if there is no limit on that (RLIMIT_MEMLOCK): it
// is one for all processes of a user, and the rings of others need it more. The kernel
// may refuse; requests are served all the same.
func pin(r *uring.Ring, memory [][]byte) pinned {
	if limit, err := lockLimit(); err != nil || limit != unix.RLIM_INFINITY {
		return nil
	}
	var p pinned
	for _, m := range memory {
		if len(m) > 0 {
			p = append(p, iovec(m))
		}
	}
	if len(p) == 0 || r.RegisterBuffers(p) != nil {
		return nil
	}
	return p
}

// find tells in which piece a transfer of one buffer lies, if it does in one.
func (p pinned) find(c *call) (index uint16, ok bool) {
	if len(p) == 0 || c.kind > callWrite || len(c.iov) != 1 {
		return 0, false
	}
	at := uintptr(unsafe.Pointer(c.iov[0].Base))
	for i := range p {
		if off := uint64(at - uintptr(unsafe.Pointer(p[i].Base))); off < p[i].Len && c.iov[0].Len <= p[i].Len-off {
			return uint16(i), true
		}
	}
	return 0, false
}
