package qmp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	goqemu "github.com/digitalocean/go-qemu/qmp"
	"github.com/digitalocean/go-qemu/qmp/raw"
)

// echo answers each command with a text of the size that its arguments name.
func echo(p *peer) {
	for {
		r, ok := p.receive()
		if !ok {
			return
		}
		p.send(`{"return": ` + string(r.Arguments) + `, "id": "` + r.ID + `"}`)
	}
}

func TestExecuteReturnsRepliesOfAnySize(t *testing.T) {
	m := connect(t, echo)
	for _, size := range []int{0, 1, 4096, 65535, 65536, 65537, 5 << 20} {
		want := strings.Repeat("é", size/2)
		var got string
		if err := m.Execute(patient(t), "echo", want, &got); err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
		if got != want {
			t.Fatalf("size %d: reply differs", size)
		}
	}
}

func TestRepliesFindTheirCallersInAnyOrder(t *testing.T) {
	const n = 50
	m := connect(t, func(p *peer) {
		var all []request
		for len(all) < n {
			r, ok := p.receive()
			if !ok {
				return
			}
			all = append(all, r)
		}
		for i := range all { // the last comes first
			r := all[n-1-i]
			p.send(`{"event": "NOISE", "data": {}, "timestamp": {"seconds": 1, "microseconds": 2}}`)
			p.send(`{"id": "` + r.ID + `", "return": ` + string(r.Arguments) + `}`)
		}
	})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			var got int
			if err := m.Execute(patient(t), "echo", i, &got); err != nil || got != i {
				t.Errorf("command %d: got %d, %v", i, got, err)
			}
		})
	}
	wg.Wait()
}

// trickle writes a text in pieces, in one packet each.
func trickle(w io.Writer, text string, piece int) {
	for len(text) > 0 {
		n := min(piece, len(text))
		if _, err := io.WriteString(w, text[:n]); err != nil {
			return
		}
		text = text[n:]
	}
}

func TestPacketsMayBeSplitAndMerged(t *testing.T) {
	for _, piece := range []int{1, 7, 1000, 1 << 20} {
		t.Run(fmt.Sprint(piece), func(t *testing.T) {
			m := connect(t, func(p *peer) {
				r, _ := p.receive()
				event := `{"timestamp": {"seconds": 5, "microseconds": 6}, "event": "E", "data": {"n": 1}}` + "\r\n"
				pretty := "{\n    \"return\": {\n        \"text\": \"" + strings.Repeat("x", 3000) + "\"\n    },\n    \"id\": \"" + r.ID + "\"\n}\n"
				trickle(p, event+event+pretty+event, piece)
				p.receive()
			})
			ctx, cancel := context.WithCancel(patient(t))
			defer cancel()
			events, err := m.Events(ctx)
			if err != nil {
				t.Fatal(err)
			}
			var got struct{ Text string }
			if err := m.Execute(ctx, "c", nil, &got); err != nil || len(got.Text) != 3000 {
				t.Fatalf("got %d bytes, %v", len(got.Text), err)
			}
			for range 3 {
				e := <-events
				if e.Event != "E" || e.Data["n"] != 1.0 || e.Timestamp.Seconds != 5 {
					t.Fatalf("got event %+v", e)
				}
			}
		})
	}
}

func TestEventFloodDoesNotHoldUpReplies(t *testing.T) {
	const flood = 10 * EventQueue
	m := connect(t, func(p *peer) {
		r, _ := p.receive()
		for i := range flood {
			p.send(fmt.Sprintf(`{"event": "E", "data": {"n": %d}}`, i))
		}
		p.send(`{"return": {}, "id": "` + r.ID + `"}`)
		p.receive()
	})
	events, err := m.Events(patient(t)) // nobody reads it during the flood
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Execute(patient(t), "c", nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := m.Dropped(); got != flood-EventQueue {
		t.Errorf("%d events dropped, want %d", got, flood-EventQueue)
	}
	for i := flood - EventQueue; i < flood; i++ { // the newest are kept, in order
		if e := <-events; e.Data["n"] != float64(i) {
			t.Fatalf("got event %v, want %d", e.Data["n"], i)
		}
	}
}

func TestEventChannelClosesWithItsContext(t *testing.T) {
	m := connect(t, echo)
	ctx, cancel := context.WithCancel(patient(t))
	events, err := m.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, ok := <-events; ok {
		t.Fatal("event after the end")
	}
}

func TestServersErrorIsTyped(t *testing.T) {
	m := connect(t, func(p *peer) {
		for {
			r, ok := p.receive()
			if !ok {
				return
			}
			p.send(`{"error": {"class": "DeviceNotFound", "desc": "Device 'x' not found"}, "id": "` + r.ID + `"}`)
		}
	})
	err := m.Execute(patient(t), "device_del", nil, nil)
	var e *Error
	if !errors.As(err, &e) || e.Class != "DeviceNotFound" || err.Error() != "run device_del: Device 'x' not found" {
		t.Fatalf("got %v", err)
	}
	if _, err := m.Run([]byte(`{"execute": "device_del"}`)); !errors.As(err, &e) {
		t.Fatalf("Run: got %v", err)
	}
}

func TestLostConnectionFailsAllThatWait(t *testing.T) {
	const n = 10
	m := connect(t, func(p *peer) {
		for range n {
			p.receive()
		}
		p.send(`{"return": [1, 2, `) // half a reply, then nothing
	})
	events, err := m.Events(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if err := m.Execute(patient(t), "c", nil, nil); !errors.Is(err, ErrConnectionLost) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	if _, ok := <-events; ok {
		t.Error("event channel still open")
	}
	if err := m.Execute(patient(t), "c", nil, nil); !errors.Is(err, ErrConnectionLost) {
		t.Errorf("afterwards: got %v", err)
	}
	if _, err := m.Events(patient(t)); !errors.Is(err, ErrConnectionLost) {
		t.Errorf("afterwards: events: %v", err)
	}
	if err := m.Connect(); err != nil {
		t.Errorf("connect again: %v", err)
	}
}

func TestDisconnectFailsAllThatWaitAndMayBeRepeated(t *testing.T) {
	got := make(chan request, 1)
	m := connect(t, func(p *peer) {
		r, _ := p.receive()
		got <- r
		p.receive()
	})
	failed := make(chan error, 1)
	go func() { failed <- m.Execute(patient(t), "c", nil, nil) }()
	<-got
	for range 2 {
		if err := m.Disconnect(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-failed; !errors.Is(err, ErrConnectionLost) {
		t.Errorf("got %v", err)
	}
	if err := m.Execute(patient(t), "c", nil, nil); !errors.Is(err, ErrNotConnected) {
		t.Errorf("afterwards: got %v", err)
	}
}

func TestCancelledCommandLeavesTheConnectionUsable(t *testing.T) {
	started := make(chan request, 1)
	m := connect(t, func(p *peer) {
		r, _ := p.receive()
		started <- r
		next, _ := p.receive()
		p.send(`{"return": "late", "id": "` + r.ID + `"}`)
		p.send(`{"return": "next", "id": "` + next.ID + `"}`)
		p.receive()
	})
	ctx, cancel := context.WithCancel(patient(t))
	go func() { <-started; cancel() }()
	if err := m.Execute(ctx, "slow", nil, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	var got string
	if err := m.Execute(patient(t), "c", nil, &got); err != nil || got != "next" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestCancelStopsAWriteToAServerThatDoesNotRead(t *testing.T) {
	begun := make(chan struct{})
	m := connect(t, func(p *peer) {
		p.Read(make([]byte, 10))
		close(begun)
		<-t.Context().Done()
	})
	ctx, cancel := context.WithCancel(patient(t))
	big := strings.Repeat("x", 8<<20) // more than a socket holds
	done := make(chan error, 2)
	for range 2 { // one blocks in the write, the other waits for its turn
		go func() { done <- m.Execute(ctx, "c", big, nil) }()
	}
	<-begun
	cancel()
	for range 2 {
		if err := <-done; !errors.Is(err, context.Canceled) && !errors.Is(err, ErrConnectionLost) {
			t.Errorf("got %v", err)
		}
	}
}

func TestConnectExplainsASilentServer(t *testing.T) {
	path := serve(t, func(net.Conn) { <-t.Context().Done() })
	ctx, cancel := context.WithCancel(patient(t))
	cancel()
	_, err := Dial(ctx, path)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	client, server := net.Pipe()
	defer server.Close()
	_, err = open(ctx, client, MaxMessage, nil)
	if err == nil || !strings.Contains(err.Error(), "one client at a time") {
		t.Fatalf("got %v", err)
	}
}

func TestWhatIsNotQMPIsRefused(t *testing.T) {
	for name, first := range map[string]string{
		"text":        "SSH-2.0-OpenSSH_9.2\r\n",
		"wrong json":  `{"return": {}}`,
		"not a thing": `{"hello": 1}`,
		"number":      `17`,
		"wrong type":  `{"QMP": 1}`,
		"no message":  `null`,
	} {
		t.Run(name, func(t *testing.T) {
			path := serve(t, func(c net.Conn) { io.WriteString(c, first) })
			if _, err := Dial(patient(t), path); !errors.Is(err, ErrProtocol) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestReplyWithoutIDEndsTheConnection(t *testing.T) {
	for reply, want := range map[string]string{
		`{"error": {"class": "GenericError", "desc": "JSON parse error"}}`: "reply without id: JSON parse error",
		`{"return": {}}`: "reply without id",
	} {
		m := connect(t, func(p *peer) {
			p.receive()
			p.send(reply)
			p.receive()
		})
		err := m.Execute(patient(t), "c", nil, nil)
		if !errors.Is(err, ErrConnectionLost) || !errors.Is(err, ErrProtocol) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: got %v", reply, err)
		}
	}
}

func TestMessageOverTheLimitEndsTheConnection(t *testing.T) {
	path := serve(t, func(c net.Conn) {
		if p, ok := greet(c); ok {
			echo(p)
		}
	})
	m := New("unix", path)
	m.limit = 100_000
	if err := m.Connect(); err != nil {
		t.Fatal(err)
	}
	defer m.Disconnect()
	for range 5 { // the limit is for one message, not for all
		if err := m.Execute(patient(t), "echo", strings.Repeat("x", 90_000), nil); err != nil {
			t.Fatal(err)
		}
	}
	err := m.Execute(patient(t), "echo", strings.Repeat("x", 100_000), nil)
	if !errors.Is(err, ErrTooLarge) || !errors.Is(err, ErrConnectionLost) {
		t.Fatalf("got %v", err)
	}
}

// go-qemu's own commands run over the transport.
func TestRunServesGoQEMU(t *testing.T) {
	m := connect(t, func(p *peer) {
		r, _ := p.receive()
		p.send(`{"event": "E", "data": {}}`)
		p.send(`{"return": {"qemu": {"micro": 1, "minor": 2, "major": 9}, "package": "` + r.Execute + `"}, "id": "` + r.ID + `"}`)
		r, _ = p.receive()
		p.send(`{"return": ` + string(r.Arguments) + `, "id": "` + r.ID + `"}`)
		p.receive()
	})
	v, err := raw.NewMonitor(m).QueryVersion()
	if err != nil || v.Qemu.Major != 9 || v.Package != "query-version" {
		t.Fatalf("got %+v, %v", v, err)
	}
	got, err := m.Run([]byte(`{"execute": "echo", "arguments": {"a": 1}, "id": {"mine": [7]}}`))
	if want := `{"id":{"mine":[7]},"return":{"a":1}}`; err != nil || string(got) != want {
		t.Fatalf("got %s, %v, want %s", got, err, want)
	}
	for _, bad := range []string{"", "null", "[]", "{"} {
		if _, err := m.Run([]byte(bad)); err == nil {
			t.Errorf("Run(%q) succeeded", bad)
		}
	}
}

func TestVersionIsTheGreetings(t *testing.T) {
	m := connect(t, echo)
	v, err := m.Version()
	if err != nil || v.String() != "7.2.22" {
		t.Fatalf("got %s, %v", v, err)
	}
	var none goqemu.Version
	if v, err := New("unix", "/").Version(); v != none || !errors.Is(err, ErrNotConnected) {
		t.Fatalf("without connection: %v, %v", v, err)
	}
}
