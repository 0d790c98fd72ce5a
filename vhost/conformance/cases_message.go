package conformance

import (
	"bytes"
	"errors"
	"slices"

	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
)

var messageCases = []Case{
	{Kind: Must, Rule: "GET_CONFIG answers in the length that was asked for", Spec: "vhost-user, GET_CONFIG", run: configLengths},
	{Kind: House, Rule: "GET_CONFIG of 256 bytes is padded with zeros", Spec: "vhost-user, GET_CONFIG; some front-ends always ask for 256", run: configPadded},
	{Kind: House, Rule: "GET_CONFIG outside the space is an error", Spec: "vhost-user, GET_CONFIG", run: configOutside},
	{Kind: House, Rule: "SET_CONFIG changes the write cache only", Spec: "virtio 5.2.4, 5.2.6.2", run: setConfig},
	{Kind: House, Rule: "the configuration space makes sense", Spec: "virtio 5.2.4", run: configSense},
	{Kind: Must, Rule: "a message with a reply of its own gets no second one", Spec: "vhost-user, REPLY_ACK", run: oneReply},
	{Kind: House, Rule: "a failure is answered and does not end the session", Spec: "vhost-user, REPLY_ACK", run: failureIsAnswered},
	{Kind: House, Rule: "features that were not offered are refused", Spec: "vhost-user, SET_FEATURES", run: foreignFeatures},
	{Kind: House, Rule: "rings beyond the number offered are refused", Spec: "vhost-user, Multiple queue support", run: tooManyRings},
	{Kind: House, Rule: "unknown requests are refused", Spec: "vhost-user, Communication", run: unknownRequests},
	{Kind: House, Rule: "payloads of the wrong size are refused", Spec: "vhost-user, Message Specification", run: wrongSizes},
	{Kind: House, Rule: "descriptors where none belong are refused or dropped", Spec: "vhost-user, Message Specification", run: strayFiles},
	{Kind: House, Rule: "missing descriptors are refused", Spec: "vhost-user, Message Specification", run: missingFiles},
	{Kind: Must, Rule: "a message may come in pieces", Spec: "vhost-user, Message Specification", run: pieces},
	{Kind: House, Rule: "a message may end early", Spec: "vhost-user, Communication", run: endsEarly},
	{Kind: House, Rule: "headers that no message has are refused", Spec: "vhost-user, Header", run: badHeaders},
}

func configLengths(x *rig) {
	s := x.acked()
	full := make([]byte, frontend.ConfigSize)
	x.must(s.GetConfig(0, full))
	for _, n := range []int{1, 2, 4, 8, 20, 36, 60} {
		for _, off := range []int{0, 1, 8, 20, 32, 56} {
			if off+n <= len(full) {
				x.samePart(s, full, off, n)
			}
		}
	}
}

// configPadded is what some front-ends do whatever the device.
func configPadded(x *rig) {
	s := x.acked()
	full := make([]byte, protocol.MaxConfig)
	x.must(s.GetConfig(0, full))
	for _, n := range []int{1, 96, 200} {
		for _, off := range []int{0, 8, 56} {
			x.samePart(s, full, off, n)
		}
	}
}

// samePart compares a piece of the configuration space with the whole.
func (x *rig) samePart(s *frontend.Session, full []byte, off, n int) {
	b := bytes.Repeat([]byte{0xaa}, n)
	x.must(s.GetConfig(uint32(off), b))
	if !bytes.Equal(b, full[off:off+n]) {
		x.errorf("%d bytes at %d differ from those of the whole", n, off)
	}
}

func configOutside(x *rig) {
	for _, c := range []protocol.Config{{Offset: 250, Data: make([]byte, 7)}, {Offset: 1 << 31, Data: make([]byte, 4)}, {Data: make([]byte, 257)}} {
		s := x.acked()
		x.must(s.SendRaw(header(protocol.GetConfig, 0), c.Append(nil)))
		m, err := s.Receive()
		if err == nil && len(m.Payload) != 0 {
			x.errorf("%d bytes at %d: a reply of %d bytes", len(c.Data), c.Offset, len(m.Payload))
		}
		if err != nil {
			x.wantErr("outside", err, frontend.ErrDisconnected)
		}
	}
}

func setConfig(x *rig) {
	d := x.open(frontend.Options{})
	if !d.Has(frontend.FeatureConfigWCE) {
		x.skipf("CONFIG_WCE is not offered")
	}
	for _, on := range []bool{false, true, false} {
		x.must(d.SetWriteCache(on))
		c, err := d.ReadConfig()
		x.must(err)
		if (c.Writeback != 0) != on {
			x.errorf("write cache %v: the configuration space says %d", on, c.Writeback)
		}
		x.verify(d.Queue(0), 0, random(8, 4096))
	}
	x.must(d.SetWriteCache(true))
	x.needsProtocol(protocol.ProtocolReplyAck, "REPLY_ACK")
	for _, tt := range []struct{ off, n int }{{0, 8}, {0, 1}, {12, 4}, {20, 4}, {31, 2}, {32, 2}, {33, 1}, {34, 2}, {100, 1}} {
		x.wantErr("write to another field", d.Session.SetConfig(uint32(tt.off), 0, make([]byte, tt.n)), frontend.ErrRefused)
	}
	c, err := d.ReadConfig()
	x.must(err)
	d.Config.Writeback = c.Writeback
	if c != d.Config {
		x.errorf("refused writes changed %+v to %+v", d.Config, c)
	}
}

func configSense(x *rig) {
	d := x.connect(frontend.Options{})
	c := d.Config
	if d.Has(frontend.FeatureSizeMax) && c.SizeMax < 4096 {
		x.errorf("size_max %d: some drivers cut requests into pieces of that size", c.SizeMax)
	}
	if d.Has(frontend.FeatureSegMax) && c.SegMax == 0 {
		x.errorf("seg_max 0")
	}
	if d.Has(frontend.FeatureBlkSize) && (c.BlkSize < 512 || c.BlkSize > 4096 || c.BlkSize&(c.BlkSize-1) != 0) {
		x.errorf("blk_size %d", c.BlkSize)
	}
	if d.Capacity()%int64(x.peer.block) != 0 {
		x.errorf("a capacity of %d bytes is no multiple of %d", d.Capacity(), x.peer.block)
	}
	if d.Has(frontend.FeatureMQ) && int(c.NumQueues) != x.peer.queues {
		x.errorf("num_queues %d, GET_QUEUE_NUM %d", c.NumQueues, x.peer.queues)
	}
}

func oneReply(x *rig) {
	s := x.acked()
	own := []protocol.Request{protocol.GetFeatures, protocol.GetProtocolFeatures}
	if x.peer.hasProtocol(protocol.ProtocolMQ) {
		own = append(own, protocol.GetQueueNum)
	}
	if x.peer.hasProtocol(protocol.ProtocolConfigureMemSlots) {
		own = append(own, protocol.GetMaxMemSlots)
	}
	for _, r := range own {
		x.must(s.SendRaw(header(r, protocol.FlagNeedReply), nil))
	}
	for _, r := range own {
		m, err := s.Receive()
		x.must(err)
		if !m.IsReply() || protocol.Request(m.Request) != r || len(m.Payload) != 8 {
			x.errorf("reply to %v: %v with %d bytes", r, protocol.Request(m.Request), len(m.Payload))
		}
	}
	// Nothing else is under way: the next answer is the next question's.
	x.alive(s)
}

func failureIsAnswered(x *rig) {
	s := x.acked()
	x.wantErr("size 3", s.SetVringNum(0, 3), frontend.ErrRefused)
	x.wantErr("size 0", s.SetVringNum(0, 0), frontend.ErrRefused)
	x.wantErr("size 65536", s.SetVringNum(0, 65536), frontend.ErrRefused)
	x.wantErr("base 65536", s.SetVringBase(0, 65536), frontend.ErrRefused)
	x.alive(s)
	x.must(s.SetVringNum(0, 128))
}

func foreignFeatures(x *rig) {
	s := x.acked()
	offered, err := s.GetFeatures()
	x.must(err)
	x.wantErr("SET_FEATURES", s.SetFeatures(offered|1<<62), refused...)
}

func tooManyRings(x *rig) {
	s := x.acked()
	n, err := s.GetQueueNum()
	x.must(err)
	for _, index := range []uint32{uint32(n), 255, 256, 1 << 31, 1<<32 - 1} {
		x.wantErr("SET_VRING_NUM", s.SetVringNum(index, 128), frontend.ErrRefused)
		x.wantErr("SET_VRING_ENABLE", s.SetVringEnable(index, true), frontend.ErrRefused)
	}
	x.wantErr("SET_VRING_KICK", s.SetVringKick(uint8(n), -1), frontend.ErrRefused)
	x.alive(s)
	// Its reply cannot say that it failed.
	_, err = s.GetVringBase(uint32(n))
	x.wantErr("GET_VRING_BASE", err, frontend.ErrDisconnected, frontend.ErrBackend)
}

func unknownRequests(x *rig) {
	for _, r := range []protocol.Request{0, 45, 100, 1 << 31, 1<<32 - 1, protocol.SendRARP, protocol.IOTLBMsg, protocol.PostcopyAdvise, protocol.GPUSetSocket} {
		s := x.acked()
		x.wantErr(r.String(), s.Set(r, nil), refused...)
		s = x.acked()
		x.wantErr(r.String()+" with payload", s.Set(r, make([]byte, 1000)), refused...)
	}
}

// setters are messages without a reply of their own, and their right payloads.
var setters = map[protocol.Request][]byte{
	protocol.SetFeatures:         make([]byte, 8),
	protocol.SetOwner:            nil,
	protocol.SetMemTable:         (&protocol.MemoryTable{}).Append(nil),
	protocol.SetVringNum:         protocol.VringState{Num: 128}.Append(nil),
	protocol.SetVringAddr:        (&protocol.VringAddr{}).Append(nil),
	protocol.SetVringBase:        protocol.VringState{}.Append(nil),
	protocol.SetVringKick:        protocol.VringFD{NoFD: true}.Append(nil),
	protocol.SetVringCall:        protocol.VringFD{NoFD: true}.Append(nil),
	protocol.SetVringErr:         protocol.VringFD{NoFD: true}.Append(nil),
	protocol.SetProtocolFeatures: make([]byte, 8),
	protocol.SetVringEnable:      protocol.VringState{}.Append(nil),
	protocol.SetConfig:           (&protocol.Config{Offset: 32, Data: []byte{1}}).Append(nil),
	protocol.AddMemReg:           (&protocol.SingleRegion{}).Append(nil),
	protocol.RemMemReg:           (&protocol.SingleRegion{}).Append(nil),
}

// ordered gives a map of messages a fixed order.
func ordered(m map[protocol.Request][]byte) []protocol.Request {
	var rs []protocol.Request
	for r := range m {
		rs = append(rs, r)
	}
	slices.Sort(rs)
	return rs
}

func wrongSizes(x *rig) {
	for _, r := range ordered(setters) {
		right := setters[r]
		for _, n := range []int{0, 1, len(right) - 1, len(right) + 1, len(right) + 8, 300, protocol.MaxPayload} {
			if n < 0 || n == len(right) {
				continue
			}
			s := x.acked()
			payload := append(slices.Clone(right), make([]byte, protocol.MaxPayload)...)[:n]
			x.wantErr(r.String(), s.Set(r, payload), refused...)
		}
	}
}

func strayFiles(x *rig) {
	d := x.connect(frontend.Options{})
	fd := d.Queue(0).Kick.FD()
	x.must(d.Session.Close())
	for _, fds := range [][]int{{fd}, {fd, fd, fd, fd, fd, fd, fd, fd}} {
		for _, r := range []protocol.Request{protocol.SetOwner, protocol.SetVringNum, protocol.SetFeatures, protocol.SetVringEnable} {
			s := x.acked()
			if err := s.Set(r, setters[r], fds...); err != nil {
				x.wantErr(r.String(), err, refused...)
			}
		}
		s := x.acked()
		x.must(s.SendRaw(header(protocol.GetFeatures, 0), nil, fds...))
		if _, err := s.Receive(); err != nil {
			x.wantErr("GET_FEATURES", err, frontend.ErrDisconnected)
		}
	}
}

func missingFiles(x *rig) {
	d := x.connect(frontend.Options{})
	table, fds, err := d.Memory.Table()
	x.must(err)
	region := protocol.SingleRegion{Region: table.Regions[0]}
	x.must(d.Session.Close())
	for _, tt := range []struct {
		r       protocol.Request
		payload []byte
		fds     []int
	}{
		{protocol.SetMemTable, table.Append(nil), nil},
		{protocol.SetMemTable, table.Append(nil), []int{fds[0], fds[0]}},
		{protocol.AddMemReg, region.Append(nil), nil},
		{protocol.AddMemReg, region.Append(nil), []int{fds[0], fds[0]}},
		{protocol.SetVringKick, protocol.VringFD{}.Append(nil), nil},
		{protocol.SetVringCall, protocol.VringFD{}.Append(nil), nil},
		{protocol.SetVringErr, protocol.VringFD{}.Append(nil), []int{fds[0], fds[0]}},
		{protocol.SetVringKick, protocol.VringFD{NoFD: true}.Append(nil), []int{fds[0]}},
		{protocol.SetBackendReqFD, nil, nil},
	} {
		s := x.acked()
		x.wantErr(tt.r.String(), s.Set(tt.r, tt.payload, tt.fds...), refused...)
	}
}

func pieces(x *rig) {
	s := x.acked()
	h := header(protocol.SetVringNum, protocol.FlagNeedReply)
	h.Size = protocol.VringStateSize
	wire := append(h.Append(nil), protocol.VringState{Num: 64}.Append(nil)...)
	for i := range wire {
		x.must(s.Conn().WriteRaw(wire[i : i+1]))
	}
	m, err := s.Receive()
	x.must(err)
	if code, err := protocol.DecodeU64(m.Payload); err != nil || code != 0 {
		x.errorf("answer %d, %v", code, err)
	}
}

func endsEarly(x *rig) {
	d := x.connect(frontend.Options{})
	table, fds, err := d.Memory.Table()
	x.must(err)
	payload := table.Append(nil)
	h := header(protocol.SetMemTable, 0)
	h.Size = uint32(len(payload))
	wire := append(h.Append(nil), payload...)
	x.must(d.Session.Close())
	for n := 1; n < len(wire); n += 3 {
		s := x.session()
		x.must(s.Conn().WriteRaw(wire[:n], fds...))
		x.must(s.Close())
	}
}

func badHeaders(x *rig) {
	for _, h := range []protocol.Header{
		{Request: 1, Flags: 0},
		{Request: 1, Flags: 2},
		{Request: 1, Flags: 1 | protocol.FlagReply},
		{Request: 1, Flags: 1, Size: 1 << 31},
		{Request: 1, Flags: 1, Size: 1<<32 - 1},
	} {
		s := x.session()
		x.must(s.Conn().WriteRaw(h.Append(nil)))
		if _, err := s.Receive(); !errors.Is(err, frontend.ErrDisconnected) {
			x.errorf("%+v: %v", h, err)
		}
	}
}
