package vhost_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/vhost"
	"sealblk/vhost/frontend"
	"sealblk/vhost/inflight"
	"sealblk/vhost/protocol"
)

func openFDs(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

// TestProtocolBreaches: each ends its session with an error that says what it was,
// leaves no descriptor behind, and the next front-end is served.
func TestProtocolBreaches(t *testing.T) {
	header := func(request, flags, size uint32) []byte {
		b := binary.NativeEndian.AppendUint32(nil, request)
		b = binary.NativeEndian.AppendUint32(b, flags)
		return binary.NativeEndian.AppendUint32(b, size)
	}
	message := func(r protocol.Request, payload ...byte) []byte {
		return append(header(uint32(r), 1, uint32(len(payload))), payload...)
	}
	u64 := func(v uint64) []byte { return protocol.AppendU64(nil, v) }
	eight := make([]int, 8)
	nine := make([]int, 9)
	for _, c := range []struct {
		name string
		raw  []byte
		fds  []int
		want error
	}{
		{"unknown request", message(999), nil, vhost.ErrUnknownRequest},
		{"request 0", message(0), nil, vhost.ErrUnknownRequest},
		{"in-flight region of no queues", message(protocol.GetInflightFD, make([]byte, 24)...), nil, inflight.ErrShape},
		{"in-flight region without its descriptor", message(protocol.SetInflightFD, make([]byte, 24)...), nil, vhost.ErrFileCount},
		{"short in-flight description", message(protocol.SetInflightFD, make([]byte, 19)...), eight[:1], protocol.ErrPayloadSize},
		{"log that was not negotiated", message(protocol.SetLogBase, make([]byte, 16)...), eight[:1], vhost.ErrFeatures},
		{"log without its descriptor", message(protocol.SetLogBase, make([]byte, 16)...), nil, vhost.ErrFileCount},
		{"half a log", message(protocol.SetLogBase, make([]byte, 8)...), eight[:1], protocol.ErrPayloadSize},
		{"log descriptor that is none", message(protocol.SetLogFD), nil, vhost.ErrFileCount},
		{"a reply", header(1, 5, 0), nil, vhost.ErrReply},
		{"version 2", header(1, 2, 0), nil, protocol.ErrVersion},
		{"endless payload", header(1, 1, 1<<31), nil, protocol.ErrPayloadTooLarge},
		{"payload where none belongs", message(protocol.GetFeatures, 1), nil, protocol.ErrPayloadSize},
		{"short u64", message(protocol.SetFeatures, 1, 2, 3), nil, protocol.ErrPayloadSize},
		{"long u64", message(protocol.SetFeatures, make([]byte, 9)...), nil, protocol.ErrPayloadSize},
		{"empty ring state", message(protocol.GetVringBase), nil, protocol.ErrPayloadSize},
		{"short address", message(protocol.SetVringAddr, make([]byte, 39)...), nil, protocol.ErrPayloadSize},
		{"short config", message(protocol.GetConfig, make([]byte, 11)...), nil, protocol.ErrPayloadSize},
		{"config shorter than it says", message(protocol.GetConfig, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0), nil, protocol.ErrPayloadSize},
		{"nine regions", message(protocol.SetMemTable, 9, 0, 0, 0, 0, 0, 0, 0), nil, protocol.ErrPayloadValue},
		{"a region that is not there", message(protocol.SetMemTable, 1, 0, 0, 0, 0, 0, 0, 0), nil, protocol.ErrPayloadSize},
		{"a region without its descriptor", message(protocol.SetMemTable, append([]byte{1, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 32)...)...), nil, vhost.ErrFileCount},
		{"two descriptors for a region", message(protocol.AddMemReg, make([]byte, 40)...), eight[:2], vhost.ErrFileCount},
		{"none for a region", message(protocol.AddMemReg, make([]byte, 40)...), nil, vhost.ErrFileCount},
		{"two descriptors to remove a region", message(protocol.RemMemReg, make([]byte, 40)...), eight[:2], vhost.ErrFileCount},
		{"a descriptor nobody wants", message(protocol.GetFeatures), eight[:1], vhost.ErrFileCount},
		{"eight descriptors nobody wants", message(protocol.SetOwner), eight, vhost.ErrFileCount},
		{"kick without descriptor", message(protocol.SetVringKick, u64(0)...), nil, vhost.ErrFileCount},
		{"kick with two", message(protocol.SetVringKick, u64(0)...), eight[:2], vhost.ErrFileCount},
		{"kick with one too many", message(protocol.SetVringKick, u64(1<<8)...), eight[:1], vhost.ErrFileCount},
		{"kick with undefined bits", message(protocol.SetVringKick, u64(1<<9)...), eight[:1], protocol.ErrPayloadValue},
		{"back-end channel without descriptor", message(protocol.SetBackendReqFD), nil, vhost.ErrFileCount},
		{"flood of descriptors", message(protocol.SetOwner), nine, protocol.ErrTooManyFiles},
		{"descriptors with a bad header", header(1, 2, 0), eight, protocol.ErrVersion},
		{"half a header", []byte{1, 0, 0}, nil, io.ErrUnexpectedEOF},
		{"half a header with descriptors", []byte{1, 0, 0}, eight, io.ErrUnexpectedEOF},
		{"half a payload", header(2, 1, 8), nil, io.ErrUnexpectedEOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev, _ := newDevice(t)
			fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
			must(t, err)
			defer unix.Close(fd)
			fds := make([]int, len(c.fds))
			for i := range fds {
				fds[i] = fd
			}
			before := openFDs(t)
			s, ended := pair(t, context.Background(), dev)
			must(t, s.SetProtocolFeatures(0))
			alive(t, s)
			must(t, s.Conn().WriteRaw(c.raw, fds...))
			if errors.Is(c.want, io.ErrUnexpectedEOF) {
				must(t, s.Close())
			}
			wantEnd(t, ended, c.want)
			s.Close()
			if n := openFDs(t); n != before {
				t.Errorf("%d descriptors, %d before", n, before)
			}
			d, _ := start(t, dev, frontend.Options{})
			roundTrip(t, d.Queue(0))
		})
	}
}

// A breach that comes with need_reply is answered, and ends the session all the same.
func TestBreachIsAnsweredBeforeTheEnd(t *testing.T) {
	dev, _ := newDevice(t)
	s, ended := pair(t, context.Background(), dev)
	must(t, s.SetProtocolFeatures(1<<protocol.ProtocolReplyAck))
	wantRefused(t, "unknown request", s.Set(protocol.SendRARP, protocol.AppendU64(nil, 0)))
	wantEnd(t, ended, vhost.ErrUnknownRequest)
}

func TestClosedDescriptorsOfEveryKindAreNotLeaked(t *testing.T) {
	dev, _ := newDevice(t)
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	must(t, err)
	defer unix.Close(fd)
	before := openFDs(t)
	s, ended := pair(t, context.Background(), dev)
	for range 5 { // each replaces the one before
		for i := range uint8(queues) {
			must(t, s.SetVringKick(i, fd))
			must(t, s.SetVringCall(i, fd))
			must(t, s.SetVringErr(i, fd))
		}
	}
	must(t, s.SetVringCall(0, -1))
	must(t, s.SetVringKick(0, -1))
	if _, err := s.GetVringBase(1); err != nil {
		t.Fatal(err)
	}
	must(t, s.Close())
	wantEnd(t, ended, nil)
	if n := openFDs(t); n != before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

// A kick descriptor that can never be written to again, before the ring starts.
func TestDeadKickDescriptor(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := connect(t, dev, frontend.Options{})
	share(t, d)
	prepareRing(t, d, 0, 0)
	var kick [2]int
	must(t, unix.Pipe2(kick[:], unix.O_CLOEXEC))
	must(t, d.Session.SetVringKick(0, kick[0]))
	must(t, d.Session.SetVringEnable(0, true))
	unix.Close(kick[0])
	unix.Close(kick[1])
	alive(t, d.Session)
	must(t, d.Session.SetVringKick(0, d.Queue(0).Kick.FD()))
	must(t, d.Queue(0).Kick.Signal())
	roundTrip(t, d.Queue(0))
}
