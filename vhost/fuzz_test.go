package vhost_test

import (
	"context"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"
)

// FuzzSession sends a sequence of messages to a live session. Each takes 2 bytes of
// the input for the request and the flags, 1 for the length of the payload, 1 for
// the number of descriptors, and the payload.
func FuzzSession(f *testing.F) {
	seq := func(messages ...[]byte) (b []byte) {
		for _, m := range messages {
			b = append(b, m...)
		}
		return b
	}
	msg := func(r protocol.Request, flags, fds byte, payload []byte) []byte {
		return append([]byte{byte(r), flags, byte(len(payload)), fds}, payload...)
	}
	region := protocol.MemoryRegion{GuestAddr: 0, Size: 1 << 20, UserAddr: 1 << 40}
	table := protocol.MemoryTable{N: 1, Regions: [8]protocol.MemoryRegion{region}}
	addr := protocol.VringAddr{Descriptor: 1 << 40, Available: 1<<40 + 0x1000, Used: 1<<40 + 0x2000}
	f.Add(seq(
		msg(protocol.GetFeatures, 0, 0, nil),
		msg(protocol.SetProtocolFeatures, 0, 0, protocol.AppendU64(nil, 1<<3|1<<9|1<<15)),
		msg(protocol.SetFeatures, 8, 0, protocol.AppendU64(nil, 1<<32|1<<30|1<<29|1<<28)),
		msg(protocol.SetMemTable, 8, 1, table.Append(nil)),
		msg(protocol.SetVringNum, 8, 0, protocol.VringState{Num: 128}.Append(nil)),
		msg(protocol.SetVringBase, 8, 0, protocol.VringState{}.Append(nil)),
		msg(protocol.SetVringAddr, 8, 0, addr.Append(nil)),
		msg(protocol.SetVringKick, 8, 1, protocol.AppendU64(nil, 0)),
		msg(protocol.SetVringCall, 8, 1, protocol.AppendU64(nil, 0)),
		msg(protocol.SetVringEnable, 8, 0, protocol.VringState{Num: 1}.Append(nil)),
		msg(protocol.GetVringBase, 0, 0, protocol.VringState{}.Append(nil)),
	))
	f.Add(seq(
		msg(protocol.AddMemReg, 8, 1, (&protocol.SingleRegion{Region: region}).Append(nil)),
		msg(protocol.RemMemReg, 8, 0, (&protocol.SingleRegion{Region: region}).Append(nil)),
		msg(protocol.GetConfig, 0, 0, (&protocol.Config{Data: make([]byte, 60)}).Append(nil)),
		msg(protocol.SetConfig, 8, 0, (&protocol.Config{Offset: 32, Data: []byte{0}}).Append(nil)),
		msg(protocol.SetVringKick, 8, 0, protocol.AppendU64(nil, 1<<8)),
		msg(protocol.SetBackendReqFD, 8, 1, nil),
	))
	dev, _ := newDevice(f)
	memfd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	must(f, err)
	must(f, unix.Ftruncate(memfd, 1<<20))
	event, err := unix.Eventfd(1, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	must(f, err)
	f.Cleanup(func() { unix.Close(memfd); unix.Close(event) })
	f.Fuzz(func(t *testing.T, in []byte) {
		before := openFDs(t)
		s, ended := pair(t, context.Background(), dev)
		for len(in) >= 4 {
			request, flags, size, n := protocol.Request(in[0]), protocol.Flags(in[1]), int(in[2]), int(in[3]&3)
			in = in[4:]
			size = min(size, len(in))
			fds := []int{memfd, memfd, memfd}[:n]
			switch request {
			case protocol.SetVringKick, protocol.SetVringCall, protocol.SetVringErr:
				fds = []int{event, event, event}[:n]
			}
			h := protocol.NewHeader(request, flags&protocol.FlagNeedReply)
			if s.SendRaw(h, in[:size], fds...) != nil {
				break
			}
			in = in[size:]
		}
		s.Close()
		<-ended // whatever it says: it has ended
		if n := openFDs(t); n > before {
			t.Fatalf("%d descriptors, %d before", n, before)
		}
	})
}

// FuzzRing lets a running ring eat descriptors that the fuzzer made up. The session
// must survive, and say so if the ring does not.
func FuzzRing(f *testing.F) {
	put := func(descs ...virtqueue.Desc) []byte {
		b := make([]byte, virtqueue.DescSize*len(descs))
		for i, d := range descs {
			d.Put(b[i*virtqueue.DescSize:])
		}
		return b
	}
	header := make([]byte, 16)
	const buf = 64 << 10 // where the buffer of the input lies
	f.Add(put(virtqueue.Desc{Addr: buf, Len: 16, Flags: 1, Next: 1}, virtqueue.Desc{Addr: buf + 512, Len: 512, Flags: 3, Next: 2}, virtqueue.Desc{Addr: buf + 64, Len: 1, Flags: 2}), header)
	binary.LittleEndian.PutUint32(header, 1)
	f.Add(put(virtqueue.Desc{Addr: buf, Len: 528, Flags: 1, Next: 1}, virtqueue.Desc{Addr: buf + 600, Len: 1, Flags: 2}), header)
	f.Add(put(virtqueue.Desc{Addr: buf + 32, Len: 32, Flags: 4}), append(make([]byte, 32), put(virtqueue.Desc{Addr: buf, Len: 16, Flags: 1, Next: 1}, virtqueue.Desc{Addr: buf, Len: 1, Flags: 2})...))
	f.Add(put(virtqueue.Desc{Addr: buf, Len: 16, Flags: 1, Next: 0}), header)
	dev, _ := newDevice(f)
	s, _ := pair(f, context.Background(), dev)
	d, err := frontend.Connect(s, frontend.Options{Timeout: patience, QueueSize: 16, Layout: []frontend.RegionLayout{{Size: 128 << 10}}})
	must(f, err)
	f.Cleanup(func() { closeDisk(d) })
	share(f, d)
	must(f, s.SetVringEnable(0, true))
	q := d.Queue(0)
	f.Fuzz(func(t *testing.T, descs, data []byte) {
		q.Ring.Reset(0)
		copy(q.Ring.Desc.Bytes, descs)
		window := d.Memory.Regions[0].Bytes[buf:]
		clear(window)
		copy(window, data)
		prepareRing(t, d, 0, 0)
		q.Ring.AddHead(0)
		q.Ring.Publish()
		must(t, q.Kick.Signal())
		until(t, "an answer", func() bool {
			return q.Ring.Pending() != 0 || readable(t, q.Err.FD(), 0)
		})
		_, err := d.Session.GetVringBase(0)
		must(t, err)
		for _, e := range []interface{ Clear() (bool, error) }{q.Err, q.Call, q.Kick} {
			_, err := e.Clear()
			must(t, err)
		}
	})
}
