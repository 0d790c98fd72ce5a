package vhost_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
)

func TestOffers(t *testing.T) {
	dev, _ := newDevice(t)
	s, _ := pair(t, context.Background(), dev)
	features, err := s.GetFeatures()
	must(t, err)
	if want := dev.Features() | 1<<30 | 1<<26; features != want {
		t.Errorf("features %#x, want %#x", features, want)
	}
	pf, err := s.GetProtocolFeatures()
	must(t, err)
	if want := uint64(1<<0 | 1<<1 | 1<<3 | 1<<5 | 1<<9 | 1<<12 | 1<<15); pf != want {
		t.Errorf("protocol features %#x, want %#x", pf, want)
	}
	must(t, s.SetProtocolFeatures(pf))
	if n, err := s.GetQueueNum(); n != queues || err != nil {
		t.Errorf("queues: %d, %v", n, err)
	}
	if n, err := s.GetMaxMemSlots(); n != 509 || err != nil {
		t.Errorf("memory slots: %d, %v", n, err)
	}
	must(t, s.SetOwner())
	must(t, s.ResetOwner())
	wantRefused(t, "a feature that was not offered", s.SetFeatures(features|1<<40))
	wantRefused(t, "a protocol feature that was not offered", s.SetProtocolFeatures(pf|1<<2))
	alive(t, s)
}

func TestGetConfig(t *testing.T) {
	dev, _ := newDevice(t)
	s, ended := pair(t, context.Background(), dev)
	full := bytes.Repeat([]byte{0xee}, 256)
	must(t, s.GetConfig(0, full))
	if full[0] != 0 || full[1] != capacity/512>>8 || full[34] != queues {
		t.Errorf("config % x", full[:60])
	}
	if !bytes.Equal(full[96:], make([]byte, 160)) {
		t.Errorf("beyond the device's fields: % x", full[96:])
	}
	for _, c := range []struct{ offset, n uint32 }{{0, 1}, {0, 60}, {34, 2}, {32, 1}, {8, 200}, {255, 1}, {256, 0}} {
		part := make([]byte, c.n)
		must(t, s.GetConfig(c.offset, part))
		if !bytes.Equal(part, full[c.offset:c.offset+c.n]) {
			t.Errorf("%d bytes at %d: % x", c.n, c.offset, part)
		}
	}
	// Too large: an empty reply, and the session goes on.
	request := protocol.Config{Offset: 200, Data: make([]byte, 57)}
	must(t, s.SendRaw(protocol.NewHeader(protocol.GetConfig, 0), request.Append(nil)))
	m, err := s.Receive()
	must(t, err)
	if len(m.Payload) != 0 || !m.IsReply() {
		t.Errorf("answer of %d bytes", len(m.Payload))
	}
	alive(t, s)
	must(t, s.Close())
	wantEnd(t, ended, nil)
}

func TestReplyAck(t *testing.T) {
	dev, _ := newDevice(t)
	s, _ := pair(t, context.Background(), dev)
	need := protocol.FlagNeedReply

	// Before it is negotiated nothing is acknowledged: the next reply is the next
	// request's.
	must(t, s.SendRaw(protocol.NewHeader(protocol.SetOwner, need), nil))
	alive(t, s)

	must(t, s.SetProtocolFeatures(1<<protocol.ProtocolReplyAck))
	expect := func(r protocol.Request, want []byte) {
		t.Helper()
		m, err := s.Receive()
		must(t, err)
		if protocol.Request(m.Request) != r || m.Flags != 1|protocol.FlagReply || !bytes.Equal(m.Payload, want) {
			t.Errorf("answer to %v: %v, flags %#x, % x", r, protocol.Request(m.Request), m.Flags, m.Payload)
		}
	}
	must(t, s.SendRaw(protocol.NewHeader(protocol.SetOwner, need), nil))
	expect(protocol.SetOwner, protocol.AppendU64(nil, 0))

	// Without need_reply there is no answer.
	must(t, s.SendRaw(protocol.NewHeader(protocol.SetOwner, 0), nil))
	// A message with a reply of its own gets that and no other.
	must(t, s.SendRaw(protocol.NewHeader(protocol.GetQueueNum, need), nil))
	expect(protocol.GetQueueNum, protocol.AppendU64(nil, queues))
	alive(t, s)

	// A failure answers non-zero and does not end the session.
	must(t, s.SendRaw(protocol.NewHeader(protocol.SetVringNum, need), protocol.VringState{Index: 0, Num: 3}.Append(nil)))
	expect(protocol.SetVringNum, protocol.AppendU64(nil, 1))
	alive(t, s)
}

func TestFailureThatNobodyAskedForEndsTheSession(t *testing.T) {
	dev, _ := newDevice(t)
	s, ended := pair(t, context.Background(), dev)
	must(t, s.SetVringNum(99, 128))
	if err := <-ended; err == nil {
		t.Error("no error")
	}
}

func TestCancelDrains(t *testing.T) {
	dev, fault := newDevice(t)
	ctx, cancel := context.WithCancel(context.Background())
	s, ended := pair(t, ctx, dev)
	d, err := frontend.OpenSession(s, frontend.Options{Timeout: patience})
	must(t, err)
	defer closeDisk(d)
	fault.Hold()
	r := request(t, d.Queue(0), frontend.TypeOut, 0, 512)
	submit(t, d.Queue(0), r)
	until(t, "the request", func() bool { return fault.InFlight() == 1 })
	cancel()
	select {
	case err := <-ended:
		t.Fatalf("session ended with a request in flight: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	fault.Resume()
	wantEnd(t, ended, nil)
	waitDone(t, d.Queue(0))
}

func TestCancelEndsIdleAndStalledSessions(t *testing.T) {
	dev, _ := newDevice(t)
	for _, sent := range [][]byte{nil, {1}, {1, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1}} {
		ctx, cancel := context.WithCancel(context.Background())
		s, ended := pair(t, ctx, dev)
		must(t, s.Conn().WriteRaw(sent))
		cancel()
		wantEnd(t, ended, nil)
	}
}

func TestServeTakesTheNextFrontEnd(t *testing.T) {
	dev, fault := newDevice(t)
	socket := serve(t, dev)
	for range 3 {
		d := openDisk(t, socket)
		roundTrip(t, d.Queue(0))
		must(t, d.Close())
	}
	// One that leaves with requests in flight.
	d := openDisk(t, socket)
	fault.Hold()
	submit(t, d.Queue(0), request(t, d.Queue(0), frontend.TypeOut, 0, 4096))
	until(t, "the request", func() bool { return fault.InFlight() == 1 })
	must(t, d.Session.Close())
	fault.Resume()
	closeDisk(d)
	d = openDisk(t, socket)
	if n := fault.InFlight(); n != 0 {
		t.Errorf("%d requests of the front-end that is gone", n)
	}
	roundTrip(t, d.Queue(0))
	must(t, d.Close())
}

func TestSecondFrontEndWaits(t *testing.T) {
	dev, _ := newDevice(t)
	socket := serve(t, dev)
	first := openDisk(t, socket)
	second, err := frontend.Dial(context.Background(), socket)
	must(t, err)
	second.SetTimeout(30 * time.Millisecond)
	if _, err := second.GetFeatures(); !errors.Is(err, frontend.ErrTimeout) {
		t.Fatalf("served beside the first: %v", err)
	}
	roundTrip(t, first.Queue(0))
	must(t, first.Close())
	second.SetTimeout(patience)
	if m, err := second.Receive(); err != nil || protocol.Request(m.Request) != protocol.GetFeatures {
		t.Fatalf("not served after the first: %v", err)
	}
	must(t, second.Close())
}

func TestBackendChannelIsKeptAndReplaced(t *testing.T) {
	dev, _ := newDevice(t)
	s, ended := pair(t, context.Background(), dev)
	a, b := socketpair(t)
	defer a.Close()
	fa, err := b.File()
	must(t, err)
	must(t, s.Set(protocol.SetBackendReqFD, nil, int(fa.Fd())))
	must(t, s.Set(protocol.SetBackendReqFD, nil, int(fa.Fd())))
	alive(t, s)
	fa.Close()
	b.Close()
	a.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := a.Read(make([]byte, 1)); err == nil || err.Error() == "EOF" {
		t.Fatalf("the channel is not held: %v", err)
	}
	must(t, s.Close())
	wantEnd(t, ended, nil)
	a.SetReadDeadline(time.Now().Add(patience))
	if _, err := a.Read(make([]byte, 1)); err == nil || err.Error() != "EOF" {
		t.Fatalf("the channel is open after the session: %v", err)
	}
}
