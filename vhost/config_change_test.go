package vhost_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
)

// negotiated is a session without rings or a back-end channel.
func negotiated(t *testing.T, features uint64) (*frontend.Session, func()) {
	t.Helper()
	dev, _ := newDevice(t)
	s, _ := pair(t, context.Background(), dev)
	must(t, s.SetFeatures(1<<protocol.FeatureProtocolFeatures))
	must(t, s.SetProtocolFeatures(features))
	alive(t, s) // nothing before is acknowledged, and a session that has not begun has nothing to tell
	return s, dev.Resized
}

const ackedChannel = 1<<protocol.ProtocolConfig | 1<<protocol.ProtocolBackendReq | 1<<protocol.ProtocolReplyAck

// TestChangeIsAnnounced: each change is told, also one that comes before the channel.
func TestChangeIsAnnounced(t *testing.T) {
	s, change := negotiated(t, ackedChannel)
	told := make(chan protocol.BackendRequest, 10)
	change()
	alive(t, s)
	must(t, s.ServeBackendChannel(func(r protocol.BackendRequest, _ []byte) error { told <- r; return nil }))
	for range 3 {
		select {
		case r := <-told:
			if r != protocol.BackendConfigChangeMsg {
				t.Fatalf("message %v", r)
			}
		case <-time.After(patience):
			t.Fatal("not told")
		}
		change()
	}
}

// TestChangeWhileTheFrontEndReads: the front-end asks for the configuration space
// from within its handler, as QEMU does, and neither side waits for the other.
func TestChangeWhileTheFrontEndReads(t *testing.T) {
	s, change := negotiated(t, ackedChannel)
	told := make(chan error, 100)
	must(t, s.ServeBackendChannel(func(protocol.BackendRequest, []byte) error {
		var config [60]byte
		told <- s.GetConfig(0, config[:])
		return nil
	}))
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 50 {
			change()
		}
	})
	wg.Wait()
	select {
	case err := <-told:
		must(t, err)
	case <-time.After(patience):
		t.Fatal("not told")
	}
	change()
	must(t, <-told)
}

// TestChangeWithoutRoom: a front-end that does not read its channel keeps nobody
// waiting, and is told when it does read.
func TestChangeWithoutRoom(t *testing.T) {
	s, change := negotiated(t, ackedChannel)
	var fds [2]int
	must(t, unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK))
	r := os.NewFile(uintptr(fds[0]), "channel")
	defer r.Close()
	stuffed := 0
	for {
		n, err := unix.Write(fds[1], make([]byte, 4096))
		if err != nil {
			break
		}
		stuffed += n
	}
	must(t, s.Set(protocol.SetBackendReqFD, nil, fds[1]))
	must(t, unix.Close(fds[1]))
	for range 100 {
		change()
		alive(t, s)
	}
	must(t, r.SetReadDeadline(time.Now().Add(patience)))
	for n := 0; n < stuffed; {
		k, err := r.Read(make([]byte, min(64<<10, stuffed-n)))
		must(t, err)
		n += k
	}
	message := make([]byte, protocol.HeaderSize)
	if _, err := r.Read(message); err != nil {
		t.Fatal(err)
	}
	var h protocol.Header
	must(t, h.Decode(message))
	if h.Request != uint32(protocol.BackendConfigChangeMsg) || h.NeedReply() || h.Size != 0 {
		t.Errorf("header %+v", h)
	}
}

// TestChangeThatNobodyCanBeTold: without the features, or with a channel that is
// closed, the session goes on.
func TestChangeThatNobodyCanBeTold(t *testing.T) {
	for name, features := range map[string]uint64{
		"closed channel": ackedChannel, "no CONFIG": 1<<protocol.ProtocolBackendReq | 1<<protocol.ProtocolReplyAck,
		"no channel": ackedChannel,
	} {
		t.Run(name, func(t *testing.T) {
			s, change := negotiated(t, features)
			r, w, err := os.Pipe()
			must(t, err)
			if name != "no channel" {
				must(t, s.Set(protocol.SetBackendReqFD, nil, int(w.Fd())))
			}
			must(t, w.Close())
			if name == "closed channel" {
				must(t, r.Close())
			}
			for range 3 {
				change()
				alive(t, s)
			}
			if name == "no CONFIG" {
				must(t, r.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
				if n, err := r.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("told without the feature: %d bytes, %v", n, err)
				}
			}
			r.Close()
		})
	}
}

// TestChangeAfterTheSession: a session that has ended is not told, and nothing of it
// is touched.
func TestChangeAfterTheSession(t *testing.T) {
	dev, _ := newDevice(t)
	s, ended := pair(t, context.Background(), dev)
	alive(t, s)
	must(t, s.Close())
	wantEnd(t, ended, nil)
	dev.Resized()
}
