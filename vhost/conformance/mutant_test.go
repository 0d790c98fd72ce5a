package conformance_test

import (
	"encoding/binary"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/blockdev/memory"
	"sealblk/vhost"
	"sealblk/vhost/blk"
	"sealblk/vhost/conformance"
	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"
)

// proxy stands between the suite and a good back-end, and spoils what passes.
type proxy struct {
	// request may change a message of the front-end, keep it back (false) or end
	// the connection (an error).
	request func(*protocol.Message) (bool, error)
	// reply may do the same to an answer; more is sent after it.
	reply func(*protocol.Message) (pass bool, more []protocol.Header)
	// silent is set if something never comes then: only time can tell.
	silent bool
}

var errDie = errors.New("the mutant dies")

// through starts a proxy before a socket and returns its own. A mutant that has
// died accepts nobody any more.
func (p *proxy) through(t *testing.T, socket string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "p")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			if errors.Is(p.serve(t, c, socket), errDie) {
				ln.Close()
			}
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return path
}

func (p *proxy) serve(t *testing.T, c *net.UnixConn, socket string) error {
	front, err := protocol.NewConn(c)
	if err != nil {
		return err
	}
	s, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		front.Close()
		return err
	}
	back, err := protocol.NewConn(s)
	if err != nil {
		front.Close()
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		relay(back, front, func(m *protocol.Message) (bool, []protocol.Header, error) {
			if p.reply == nil {
				return true, nil, nil
			}
			pass, more := p.reply(m)
			return pass, more, nil
		})
		shut(c)
	})
	err = relay(front, back, func(m *protocol.Message) (bool, []protocol.Header, error) {
		if p.request == nil {
			return true, nil, nil
		}
		pass, err := p.request(m)
		return pass, nil, err
	})
	shut(c)
	shut(s)
	wg.Wait()
	front.Close()
	back.Close()
	return err
}

func shut(c *net.UnixConn) {
	raw, err := c.SyscallConn()
	if err == nil {
		raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
}

// relay copies messages, with their descriptors, until one side ends.
func relay(from, to *protocol.Conn, spoil func(*protocol.Message) (bool, []protocol.Header, error)) error {
	var m protocol.Message
	for {
		if err := from.ReadMessage(&m); err != nil {
			return err
		}
		pass, more, err := spoil(&m)
		if err != nil {
			m.Files.CloseAll()
			return err
		}
		if pass {
			err = forward(to, &m)
		}
		m.Files.CloseAll()
		for _, h := range more {
			err = errors.Join(err, to.WriteMessage(h, protocol.AppendU64(nil, 0)))
		}
		if err != nil {
			return err
		}
	}
}

func forward(to *protocol.Conn, m *protocol.Message) error {
	var fds []int
	for i := range m.Files.Len() {
		fds = append(fds, m.Files.Take(i))
	}
	err := to.WriteMessage(m.Header, m.Payload, fds...)
	for _, fd := range fds {
		unix.Close(fd)
	}
	return err
}

func is(m *protocol.Message, r protocol.Request) bool { return protocol.Request(m.Request) == r }

// secondReply answers need_reply although the message has a reply of its own.
func secondReply() proxy {
	var asked atomic.Bool
	return proxy{
		request: func(m *protocol.Message) (bool, error) {
			if is(m, protocol.GetProtocolFeatures) && m.NeedReply() {
				asked.Store(true)
			}
			return true, nil
		},
		reply: func(m *protocol.Message) (bool, []protocol.Header) {
			if is(m, protocol.GetProtocolFeatures) && asked.Swap(false) {
				return true, []protocol.Header{protocol.NewHeader(protocol.GetProtocolFeatures, protocol.FlagReply)}
			}
			return true, nil
		},
	}
}

// mutants break one rule each.
var mutants = []struct {
	name string
	proxy
	// fails is the case that has to notice.
	fails string
}{
	{"the base is one too high", proxy{reply: func(m *protocol.Message) (bool, []protocol.Header) {
		if is(m, protocol.GetVringBase) {
			m.Payload[4]++
		}
		return true, nil
	}}, "session/get-vring-base-drains-the-ring"},
	{"a second reply", secondReply(), "message/a-message-with-a-reply-of-its-own-gets-no-second-one"},
	{"every failure is called a success", proxy{reply: func(m *protocol.Message) (bool, []protocol.Header) {
		if is(m, protocol.SetVringNum) || is(m, protocol.AddMemReg) {
			clear(m.Payload)
		}
		return true, nil
	}}, "message/a-failure-is-answered-and-does-not-end-the-session"},
	{"a configuration space of noise behind the first 60 bytes", proxy{reply: func(m *protocol.Message) (bool, []protocol.Header) {
		if is(m, protocol.GetConfig) && len(m.Payload) > 12+60 {
			m.Payload[len(m.Payload)-1] ^= byte(len(m.Payload)) | 1
		}
		return true, nil
	}}, "message/get-config-of-256-bytes-is-padded-with-zeros"},
	{"rings are enabled whatever the front-end says", proxy{request: func(m *protocol.Message) (bool, error) {
		if is(m, protocol.SetVringEnable) {
			m.Payload[4] = 1
		}
		return true, nil
	}}, "session/a-disabled-ring-keeps-requests-and-serves-them-when-enabled"},
	{"the capacity is a block larger than the disk", proxy{reply: func(m *protocol.Message) (bool, []protocol.Header) {
		if is(m, protocol.GetConfig) && len(m.Payload) >= 12+8 && binary.LittleEndian.Uint32(m.Payload) == 0 {
			c := m.Payload[12:]
			binary.LittleEndian.PutUint64(c, binary.LittleEndian.Uint64(c)+8)
		}
		return true, nil
	}}, "blk/the-last-sector-can-be-used"},
	{"VERSION_1 is missing", proxy{reply: func(m *protocol.Message) (bool, []protocol.Header) {
		if is(m, protocol.GetFeatures) {
			m.Payload[4] &^= 1
		}
		return true, nil
	}}, "feature/version-1-is-offered"},
	{"the base of a ring is forgotten", proxy{request: func(m *protocol.Message) (bool, error) {
		if is(m, protocol.SetVringBase) {
			clear(m.Payload[4:])
		}
		return true, nil
	}}, "ring/a-ring-begins-at-any-index"},
	{"the used ring is not logged", proxy{request: func(m *protocol.Message) (bool, error) {
		if is(m, protocol.SetVringAddr) {
			m.Payload[4] &^= byte(protocol.VringAddrLog)
		}
		return true, nil
	}}, "log/the-used-ring-is-logged-if-that-is-asked-for"},
	{"error descriptors are dropped", proxy{silent: true, request: func(m *protocol.Message) (bool, error) {
		if is(m, protocol.SetVringErr) && m.Files.Len() == 1 {
			m.Files.CloseAll()
			m.Payload[1] = 1
		}
		return true, nil
	}}, "chain/a-head-of-65535-is-rejected"},
}

// quick bounds runs that wait for what never comes.
var quick = conformance.Options{Patience: time.Second, CaseTime: 3 * time.Second, Budget: 30 * time.Second}

func mutant(t *testing.T, p *proxy) conformance.Target {
	return conformance.Target{Socket: p.through(t, serve(t, ram(t, memory.Options{}), blk.Options{NumQueues: 2}))}
}

// notices runs one case, which has to fail.
func notices(t *testing.T, target conformance.Target, name string, o conformance.Options) {
	t.Helper()
	o.Select = func(c *conformance.Case) bool { return c.Name() == name }
	report := conformance.Run(t.Context(), target, o)
	if len(report) != 1 || report[0].Result != conformance.Fail || report[0].NotRun {
		t.Fatalf("%s did not notice: %+v", name, report)
	}
	t.Log(report[0].Detail)
}

// faulty is a good device whose finished requests are spoiled. False keeps one back
// for good.
type faulty struct {
	*blk.Device
	finished func(*vhost.Request) bool
}

type faultyQueue struct {
	vhost.Queue
	finished func(*vhost.Request) bool
}

func (d *faulty) OpenQueue(c vhost.QueueConfig) (vhost.Queue, error) {
	q, err := d.Device.OpenQueue(c)
	return &faultyQueue{q, d.finished}, err
}

func (q *faultyQueue) Poll(done []*vhost.Request) int {
	n := q.Queue.Poll(done)
	kept := 0
	for _, r := range done[:n] {
		if q.finished(r) {
			done[kept] = r
			kept++
		}
	}
	return kept
}

// Mutants of the device itself.
func TestDeviceMutants(t *testing.T) {
	for _, m := range []struct {
		name     string
		finished func(*vhost.Request) bool
		fails    string
	}{
		{"used lengths are 0", func(r *vhost.Request) bool {
			r.Written = 0
			return true
		}, "regression/used-lengths-are-what-was-written"},
		{"used lengths forget the status", func(r *vhost.Request) bool {
			r.Written--
			return true
		}, "ring/framing-is-free-parts-merged-into-one-descriptor-direct"},
		{"what a read returns has a wrong bit", func(r *vhost.Request) bool {
			for _, p := range r.Writable {
				if len(p) >= 4096 {
					p[len(p)-1] ^= 1
				}
			}
			return true
		}, "regression/every-block-has-its-own-content"},
		{"what a read returns is not logged, only the status and the used ring", func(r *vhost.Request) bool {
			if n := len(r.Writes); n > 1 {
				r.Writes = append(r.Writes[:0], r.Writes[n-1])
			}
			return true
		}, "log/the-pages-of-a-read-are-logged"},
		{"only the first page of what a read returns is logged", func(r *vhost.Request) bool {
			if len(r.Writes) > 1 {
				r.Writes[0].Len = min(r.Writes[0].Len, 1)
			}
			return true
		}, "log/the-pages-of-a-read-are-logged"},
		{"what was only read from is logged", func(r *vhost.Request) bool {
			if len(r.Readable) > 0 && len(r.Writes) == 1 {
				r.Writes = append(r.Writes, virtqueue.Range{Addr: 32<<20 + 8<<12, Len: 1})
			}
			return true
		}, "log/pages-that-are-only-read-from-are-not-logged"},
	} {
		t.Run(m.name, func(t *testing.T) {
			d, err := blk.New(ram(t, memory.Options{}), blk.Options{NumQueues: 2})
			if err != nil {
				t.Fatal(err)
			}
			notices(t, conformance.Target{Socket: serveDevice(t, &faulty{d, m.finished})}, m.fails, patient)
		})
	}
}

// Each mutant fails the case that is about its fault.
func TestMutants(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			o := patient
			if m.silent {
				o = quick
			}
			notices(t, mutant(t, &m.proxy), m.fails, o)
		})
	}
	t.Run("none", func(t *testing.T) {
		o := patient
		o.Select = func(c *conformance.Case) bool {
			for _, m := range mutants {
				if c.Name() == m.fails {
					return true
				}
			}
			return false
		}
		report := conformance.Run(t.Context(), mutant(t, &proxy{}), o)
		if n := report.Tally(); n.Failed() > 0 || n.Pass != len(mutants) {
			t.Errorf("without a fault: %v", n)
		}
	})
}

// A back-end that hangs or dies at any message costs no more than the budget; every
// case is in the report, and nothing passes after the end.
func TestHangsAndDeaths(t *testing.T) {
	messages := []protocol.Request{
		protocol.GetFeatures, protocol.SetProtocolFeatures, protocol.GetConfig, protocol.SetMemTable, protocol.SetVringKick,
		protocol.SetVringEnable, protocol.GetVringBase, protocol.SetVringAddr,
	}
	if testing.Short() {
		messages = messages[:2]
	}
	for _, r := range messages {
		t.Run(r.String()+" hangs", func(t *testing.T) {
			bounded(t, &proxy{request: func(m *protocol.Message) (bool, error) { return !is(m, r), nil }})
		})
		t.Run(r.String()+" dies", func(t *testing.T) {
			bounded(t, &proxy{request: func(m *protocol.Message) (bool, error) {
				if is(m, r) {
					return false, errDie
				}
				return true, nil
			}})
		})
	}
	t.Run("nobody accepts", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		ln, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		boundedRun(t, path)
	})
	t.Run("nobody listens", func(t *testing.T) { boundedRun(t, filepath.Join(t.TempDir(), "s")) })
}

func bounded(t *testing.T, p *proxy) {
	t.Helper()
	boundedRun(t, mutant(t, p).Socket)
}

func boundedRun(t *testing.T, socket string) {
	t.Helper()
	o := conformance.Options{Patience: 200 * time.Millisecond, CaseTime: time.Second, Budget: 4 * time.Second}
	start := time.Now()
	report := conformance.Run(t.Context(), conformance.Target{Socket: socket}, o)
	if took := time.Since(start); took > o.Budget+3*time.Second {
		t.Errorf("took %v", took)
	}
	if len(report) != len(conformance.Cases()) {
		t.Errorf("%d results for %d cases", len(report), len(conformance.Cases()))
	}
	n := report.Tally()
	if n.NotRun == 0 {
		t.Errorf("nothing was cut short: %v", n)
	}
	last := report[len(report)-1]
	if last.Result != conformance.Fail || !last.NotRun || !strings.HasPrefix(last.Detail, "not run: ") {
		t.Errorf("the last case: %+v", last)
	}
}
