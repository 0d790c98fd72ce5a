package conformance

import (
	"bytes"
	"math"

	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"

	"golang.org/x/sys/unix"
)

var memoryCases = []Case{
	{Kind: Must, Rule: "ring addresses are user addresses, the others guest-physical", Spec: "vhost-user, Memory region description", run: twoAddressSpaces},
	{Kind: Must, Rule: "regions may share a file", Spec: "vhost-user, Memory region description (mmap offset)", run: sharedFile},
	{Kind: Must, Rule: "eight regions in one table", Spec: "vhost-user, SET_MEM_TABLE", run: eightRegions},
	{Kind: Must, Rule: "a buffer may span regions", Spec: "vhost-user, Memory region description", run: spanningBuffers},
	{Kind: Must, Rule: "memory may be added region by region", Spec: "vhost-user, ADD_MEM_REG", run: slots},
	{Kind: House, Rule: "as many slots as offered, and no more", Spec: "vhost-user, GET_MAX_MEM_SLOTS", run: allSlots},
	{Kind: House, Rule: "a region that was removed is gone", Spec: "vhost-user, REM_MEM_REG", run: removed},
	{Kind: House, Rule: "a region that does not exist cannot be removed", Spec: "vhost-user, REM_MEM_REG", run: removeUnknown},
	{Kind: Must, Rule: "memory may be replaced between stops", Spec: "vhost-user, SET_MEM_TABLE", run: replaced},
	{Kind: House, Rule: "impossible regions are refused", Spec: "vhost-user, Memory region description", run: impossibleRegions},
	{Kind: House, Rule: "a refused region leaves memory as it was", Spec: "vhost-user, ADD_MEM_REG", run: refusedRegion},
	{Kind: Must, Rule: "memory may be in huge pages", Spec: "vhost-user, Memory region description (mmap offset)", run: hugePages},
	{Kind: House, Rule: "rings outside memory are refused", Spec: "vhost-user, SET_VRING_ADDR", run: ringsOutside},
}

const mib = 1 << 20

func twoAddressSpaces(x *rig) {
	// Each region's user address is the other's guest address.
	d := x.open(frontend.Options{Layout: []frontend.RegionLayout{
		{GuestAddr: 0x1_0000_0000, Size: 4 * mib, UserAddr: 0x2_0000_0000},
		{GuestAddr: 0x2_0000_0000, Size: 4 * mib, UserAddr: 0x1_0000_0000, File: 1},
	}})
	x.verify(d.Queue(0), 0, random(1, 64<<10))
	b, err := d.Memory.AllocIn(1, 8192, 4096)
	x.must(err)
	x.roundTrip(d, b.GuestAddr, 8192)
}

// roundTrip writes n bytes from a guest address and reads them back to it.
func (x *rig) roundTrip(d *frontend.Disk, addr uint64, n int) {
	x.needsWritable()
	q := d.Queue(0)
	want, got := random(n, n), make([]byte, n)
	x.must(d.Memory.Write(want, addr))
	r := x.request(q, frontend.TypeOut, 64, 0)
	r.Segments = []frontend.Segment{{Addr: addr, Len: uint32(n)}}
	x.must(q.Do(r))
	x.must(d.Memory.Write(got, addr))
	r.Type = frontend.TypeIn
	x.must(q.Do(r))
	x.must(d.Memory.Read(got, addr))
	if !bytes.Equal(got, want) {
		x.errorf("%d bytes at %#x came back differently", n, addr)
	}
	if r.Written != uint32(n)+1 {
		x.errorf("used length %d for a read of %d", r.Written, n)
	}
}

func sharedFile(x *rig) {
	d := x.open(frontend.Options{Layout: []frontend.RegionLayout{
		{Size: 640 << 10}, {GuestAddr: 1 * mib, Size: 8 * mib}, {GuestAddr: 1 << 32, Size: 8 * mib},
	}})
	for i := range d.Memory.Regions {
		b, err := d.Memory.AllocIn(i, 4096, 512)
		x.must(err)
		x.roundTrip(d, b.GuestAddr, 4096)
	}
}

// adjoining is n regions of size bytes, each with a file of its own, behind one
// for rings and buffers.
func adjoining(n int, size uint64) []frontend.RegionLayout {
	layout := []frontend.RegionLayout{{Size: 16 * mib}}
	for i := range uint64(n) {
		layout = append(layout, frontend.RegionLayout{GuestAddr: 1<<32 + i*size, Size: size, File: int(i) % 4})
	}
	return layout
}

func eightRegions(x *rig) {
	d := x.open(frontend.Options{Layout: adjoining(7, 4096)})
	x.verify(d.Queue(0), 0, random(2, 64<<10))
	x.roundTrip(d, 1<<32, 7*4096)
}

func spanningBuffers(x *rig) {
	d := x.open(frontend.Options{Layout: adjoining(3, 64<<10)})
	for _, c := range []struct {
		addr uint64
		n    int
	}{{1<<32 + 64<<10 - 512, 4096}, {1<<32 + 64<<10 - 1, 4096}, {1<<32 + 64<<10 - 4095, 4096}, {1<<32 + 100, 160 << 10}} {
		x.roundTrip(d, c.addr, c.n)
	}
}

func slots(x *rig) {
	d := x.open(frontend.Options{MemorySlots: true, Layout: adjoining(20, 4096)})
	x.verify(d.Queue(0), 0, random(3, 64<<10))
	x.roundTrip(d, 1<<32, 20*4096)
	x.must(d.Stop())
	x.must(d.Start())
	x.roundTrip(d, 1<<32, 20*4096)
}

func allSlots(x *rig) {
	x.needsProtocol(protocol.ProtocolConfigureMemSlots, "CONFIGURE_MEM_SLOTS")
	s := x.acked()
	n, err := s.GetMaxMemSlots()
	x.must(err)
	if n < protocol.MaxTableRegions || n > 1024 {
		x.fatalf("%d memory slots", n)
	}
	x.must(s.Close())
	d := x.open(frontend.Options{MemorySlots: true, Layout: adjoining(int(n)-1, 4096)})
	x.roundTrip(d, 1<<32+(n-5)*4096, 3*4096)
	x.roundTrip(d, 1<<32, 32*4096)
	more := d.Memory.Regions[1]
	more.GuestAddr, more.UserAddr = 1<<40, 1<<50
	x.wantErr("one more", d.Session.AddMemReg(more.MemoryRegion, more.FD), frontend.ErrRefused)
	x.roundTrip(d, 1<<32, 4096)
}

func removed(x *rig) {
	d := x.open(frontend.Options{MemorySlots: true, Layout: adjoining(1, 64<<10)})
	x.roundTrip(d, 1<<32, 8192)
	x.must(d.Session.RemMemReg(d.Memory.Regions[1].MemoryRegion))
	x.verify(d.Queue(0), 0, random(4, 4096))
	c := x.chain(d, frontend.TypeIn)
	ds := c.good()
	ds[1].Addr = 1 << 32
	d.Queue(0).Ring.PutDesc(0, ds[0])
	c.put(ds...)
	x.rejected(c)
}

func removeUnknown(x *rig) {
	d := x.open(frontend.Options{MemorySlots: true})
	r := d.Memory.Regions[0].MemoryRegion
	for _, change := range []func(*protocol.MemoryRegion){
		func(r *protocol.MemoryRegion) { r.GuestAddr += 4096 },
		func(r *protocol.MemoryRegion) { r.UserAddr += 4096 },
		func(r *protocol.MemoryRegion) { r.Size -= 4096 },
	} {
		other := r
		change(&other)
		x.wantErr("remove", d.Session.RemMemReg(other), frontend.ErrRefused)
	}
	x.verify(d.Queue(0), 0, random(5, 4096))
}

func replaced(x *rig) {
	d := x.open(frontend.Options{Layout: adjoining(2, 64<<10)})
	x.roundTrip(d, 1<<32, 4096)
	x.must(d.Stop())
	// The same guest memory, the last region elsewhere.
	d.Memory.Regions[2].GuestAddr = 1 << 36
	x.must(d.Start())
	x.roundTrip(d, 1<<36, 4096)
}

func impossibleRegions(x *rig) {
	d := x.connect(frontend.Options{Layout: []frontend.RegionLayout{{Size: mib}, {GuestAddr: 1 << 32, Size: mib}}})
	a, b := d.Memory.Regions[0].MemoryRegion, d.Memory.Regions[1].MemoryRegion
	fd := d.Memory.Regions[0].FD
	x.must(d.Session.Close())
	for name, change := range map[string]func(){
		"empty":                    func() { b.Size = 0 },
		"guest address wraps":      func() { b.GuestAddr = math.MaxUint64 - 4095 },
		"user address wraps":       func() { b.UserAddr = math.MaxUint64 - 4095 },
		"offset wraps":             func() { b.MmapOffset = math.MaxUint64 - 4095 },
		"behind the file":          func() { b.MmapOffset += mib },
		"size of all memory":       func() { b.Size = math.MaxUint64 },
		"guest addresses overlap":  func() { b.GuestAddr = a.GuestAddr + 4096 },
		"user addresses overlap":   func() { b.UserAddr = a.UserAddr + mib - 4096 },
		"the same region twice":    func() { b = a },
		"one within the other":     func() { b.GuestAddr, b.Size = a.GuestAddr+8192, 4096 },
		"offset is larger than 63": func() { b.MmapOffset = 1 << 63 },
	} {
		saved := b
		change()
		table := protocol.MemoryTable{N: 2}
		table.Regions[0], table.Regions[1] = a, b
		x.wantErr("table: "+name, x.acked().SetMemTable(&table, fd, fd), refused...)
		if x.peer.hasProtocol(protocol.ProtocolConfigureMemSlots) {
			x.impossibleSlot(name, a, b, fd)
		}
		b = saved
	}
}

func (x *rig) impossibleSlot(name string, a, b protocol.MemoryRegion, fd int) {
	s := x.acked()
	x.must(s.AddMemReg(a, fd))
	x.wantErr("slot: "+name, s.AddMemReg(b, fd), frontend.ErrRefused)
	if _, err := s.GetFeatures(); err != nil {
		x.errorf("slot: %s: the session is gone: %v", name, err)
	}
	x.must(s.Close())
}

func refusedRegion(x *rig) {
	d := x.open(frontend.Options{MemorySlots: true})
	r := d.Memory.Regions[0]
	x.wantErr("the same again", d.Session.AddMemReg(r.MemoryRegion, r.FD), frontend.ErrRefused)
	x.verify(d.Queue(0), 0, random(6, 4096))
}

func ringsOutside(x *rig) {
	d := x.connect(frontend.Options{Layout: []frontend.RegionLayout{{Size: 4 * mib, UserAddr: 1 << 40}}})
	q := d.Queue(0)
	end := d.Memory.Regions[0].UserAddr + 4*mib
	for name, change := range map[string]func(*protocol.VringAddr){
		"descriptors nowhere":          func(a *protocol.VringAddr) { a.Descriptor = 0 },
		"avail ring nowhere":           func(a *protocol.VringAddr) { a.Available = end },
		"used ring nowhere":            func(a *protocol.VringAddr) { a.Used = math.MaxUint64 - 15 },
		"descriptors reach out":        func(a *protocol.VringAddr) { a.Descriptor = end - 16 },
		"avail ring reaches out":       func(a *protocol.VringAddr) { a.Available = end - 4 },
		"used ring reaches out":        func(a *protocol.VringAddr) { a.Used = end - 4 },
		"guest addresses":              func(a *protocol.VringAddr) { a.Descriptor, a.Used, a.Available = 0x1000, 0x2000, 0x3000 },
		"misaligned descriptors":       func(a *protocol.VringAddr) { a.Descriptor += 8 },
		"misaligned avail ring":        func(a *protocol.VringAddr) { a.Available++ },
		"misaligned used ring":         func(a *protocol.VringAddr) { a.Used += 2 },
		"the first byte of the region": func(a *protocol.VringAddr) { a.Descriptor = end - 4*mib - 16 },
	} {
		s := x.acked()
		x.must(s.SetFeatures(d.Features))
		table, fds, err := d.Memory.Table()
		x.must(err)
		x.must(s.SetMemTable(table, fds...))
		x.must(s.SetVringNum(0, uint32(q.Ring.Size())))
		a := *q.Ring.Addr(0)
		change(&a)
		// The address may be refused when it is set or when the ring starts.
		err = s.SetVringAddr(&a)
		if err == nil {
			x.must(s.SetVringErr(0, q.Err.FD()))
			err = s.SetVringKick(0, q.Kick.FD())
		}
		if err == nil {
			err = s.SetVringEnable(0, true)
		}
		if err == nil {
			x.must(q.Kick.Signal())
			if !readable(q.Err.FD(), x.patience) {
				x.errorf("%s: accepted", name)
			}
			_, err := q.Err.Clear()
			x.must(err)
			if _, err := s.GetFeatures(); err != nil {
				x.errorf("%s: the session is gone: %v", name, err)
			}
		} else {
			x.wantErr(name, err, refused...)
		}
		x.must(s.Close())
	}
}

const hugePage = 2 * mib

// hugePages shares a region that begins in the middle of a huge page, as QEMU does
// with memory in hugetlbfs: to map it takes an offset that is rounded down.
func hugePages(x *rig) {
	fd, err := unix.MemfdCreate("sealblk-conformance", unix.MFD_CLOEXEC|unix.MFD_HUGETLB|unix.MFD_HUGE_2MB)
	if err != nil {
		x.skipf("this host has no huge pages of 2 MiB: %v", err)
	}
	x.cleanup(func() { _ = unix.Close(fd) })
	x.must(unix.Ftruncate(fd, 2*hugePage))
	b, err := unix.Mmap(fd, 0, 2*hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		x.skipf("this host has no two huge pages free: %v", err)
	}
	x.cleanup(func() { _ = unix.Munmap(b) })
	d := x.open(frontend.Options{MemorySlots: x.peer.slots > 2})
	if x.peer.slots <= 2 {
		x.skipf("CONFIGURE_MEM_SLOTS is not offered, by which the region is added")
	}
	const inside = 640 << 10
	r := protocol.MemoryRegion{GuestAddr: 1 << 40, Size: hugePage, UserAddr: 1 << 46, MmapOffset: inside}
	x.must(d.Session.AddMemReg(r, fd))
	q := d.Queue(0)
	x.verify(q, 0, random(5, 64<<10))
	in := x.request(q, frontend.TypeIn, 0, 0)
	in.Segments = []frontend.Segment{{Addr: 1<<40 + 4096, Len: 64 << 10}}
	x.must(q.Do(in))
	if !x.peer.readOnly() && !bytes.Equal(b[inside+4096:][:64<<10], random(5, 64<<10)) {
		x.errorf("the data is not where it belongs")
	}
	x.must(d.Session.RemMemReg(r))
}
