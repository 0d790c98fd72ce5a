package blockdevtest

import (
	"math"

	"sealblk/blockdev"
)

type refusal struct {
	name string
	req  *blockdev.Request
	want error
}

// refusals are requests that no device of this geometry accepts.
func (s *suite) refusals() []refusal {
	b, end := s.block(), s.info.Capacity
	data := func(n int64) []byte { return make([]byte, n) }
	at := func(offset int64, n int64) *blockdev.Request { return transfer(blockdev.Read, offset, data(n)) }
	list := []refusal{
		{"last block and one more", at(end-b, 2*b), blockdev.ErrOutOfRange},
		{"first block outside", at(end, b), blockdev.ErrOutOfRange},
		{"far outside", at(math.MaxInt64&^(b-1), b), blockdev.ErrOutOfRange},
		{"negative offset", at(-b, b), blockdev.ErrOutOfRange},
		{"most negative offset", at(math.MinInt64, b), blockdev.ErrOutOfRange},
		{"odd offset", at(1, b), blockdev.ErrMisaligned},
		{"half a block in", at(b/2, b), blockdev.ErrMisaligned},
		{"odd length", at(0, b-1), blockdev.ErrMisaligned},
		{"half a block", at(0, b/2), blockdev.ErrMisaligned},
		{"odd empty request", &blockdev.Request{Offset: 1}, blockdev.ErrMisaligned},
		{"more length than buffers",
			&blockdev.Request{Length: 2 * b, Buffers: [][]byte{data(b)}}, blockdev.ErrMisaligned},
		{"more buffers than length",
			&blockdev.Request{Length: b, Buffers: [][]byte{data(b), data(b)}}, blockdev.ErrMisaligned},
		{"unknown operation", &blockdev.Request{Op: 99}, blockdev.ErrNotSupported},
	}
	if !s.info.ReadOnly {
		for _, r := range list[:len(list)-1] {
			w := *r.req
			w.Op = blockdev.Write
			list = append(list, refusal{"write: " + r.name, &w, r.want})
		}
	}
	return append(list, s.eraseRefusals()...)
}

func (s *suite) eraseRefusals() []refusal {
	var list []refusal
	b, end := s.block(), s.info.Capacity
	add := func(op blockdev.Op) {
		list = append(list,
			refusal{"erase outside", &blockdev.Request{Op: op, Offset: end, Length: b}, blockdev.ErrOutOfRange},
			refusal{"erase overflows", &blockdev.Request{Op: op, Offset: b, Length: math.MaxInt64 &^ (b - 1)}, blockdev.ErrOutOfRange},
			refusal{"erase of negative length", &blockdev.Request{Op: op, Offset: b, Length: -b}, blockdev.ErrOutOfRange},
			refusal{"erase of odd length", &blockdev.Request{Op: op, Offset: b, Length: b + 1}, blockdev.ErrMisaligned})
	}
	if s.info.Features.Discard && !s.info.ReadOnly {
		add(blockdev.Discard)
	}
	if s.info.Features.WriteZeroes && !s.info.ReadOnly {
		add(blockdev.WriteZeroes)
	}
	return list
}

// exactly reports whether err is want itself: the data path does not wrap.
func exactly(err, want error) bool { return any(err) == any(want) }

func testRefused(s *suite) {
	d, done := s.driver()
	defer done()
	want := Noise(3, 64<<10)
	d.Write(0, want)
	d.Write(s.info.Capacity-64<<10, want)
	for _, r := range s.refusals() {
		if err := d.Do(r.req); !exactly(err, r.want) {
			s.Errorf("%s: got %v, want %v", r.name, err, r.want)
		}
	}
	s.same("start after refusals", 0, d.Read(0, 64<<10), want)
	s.same("end after refusals", s.info.Capacity-64<<10, d.Read(s.info.Capacity-64<<10, 64<<10), want)
}

// testRefusedInBatch puts one bad request at each place of a batch of good ones:
// the bad one fails alone.
func testRefusedInBatch(s *suite) {
	d, done := s.driver()
	defer done()
	n := min(s.opts.Depth, 8)
	for bad := range n {
		want := Noise(uint64(bad), int64(n)*4096)
		var batch []*blockdev.Request
		for i := range n {
			at := int64(i) * 4096
			batch = append(batch, transfer(blockdev.Write, at, want[at:at+4096]))
		}
		good := batch[bad]
		batch[bad] = transfer(blockdev.Read, s.info.Capacity, make([]byte, 4096))
		d.Run(batch...)
		for i, r := range batch {
			if i != bad && r.Err != nil {
				s.Errorf("request %d of a batch failed with the bad one %d: %v", i, bad, r.Err)
			}
		}
		if err := batch[bad].Err; !exactly(err, blockdev.ErrOutOfRange) {
			s.Errorf("bad request %d: got %v", bad, err)
		}
		d.Must(good)
		s.same("batch", 0, d.Read(0, int64(n)*4096), want)
	}
}

func testMissingFeatures(s *suite) {
	d, done := s.driver()
	defer done()
	has := map[blockdev.Op]bool{
		blockdev.Discard:     s.info.Features.Discard,
		blockdev.WriteZeroes: s.info.Features.WriteZeroes,
	}
	for op, supported := range has {
		err := d.Do(&blockdev.Request{Op: op, Length: s.block()})
		if supported && err != nil {
			s.Errorf("op %d is a feature but gives %v", op, err)
		}
		if !supported && !exactly(err, blockdev.ErrNotSupported) {
			s.Errorf("op %d is not a feature but gives %v", op, err)
		}
	}
}

func testReadOnly(s *suite) {
	if s.opts.ReadOnly == nil {
		return
	}
	dev := s.opts.ReadOnly(s.T)
	info := dev.Info()
	if !info.ReadOnly {
		s.Fatalf("the read-only device says it is not")
	}
	q, done := s.queue(dev, s.opts.Depth)
	d := NewDriver(s, q, s.opts.Depth)
	before := d.Read(0, 8192)
	size := int64(info.LogicalBlockSize)
	reqs := map[*blockdev.Request]bool{
		transfer(blockdev.Write, 0, Noise(4, 4096)):         true,
		{Op: blockdev.Discard, Length: size}:                info.Features.Discard,
		{Op: blockdev.WriteZeroes, Length: size}:            info.Features.WriteZeroes,
		{Op: blockdev.WriteZeroes, Length: size, FUA: true}: info.Features.WriteZeroes,
	}
	for r, supported := range reqs {
		want := blockdev.ErrNotSupported
		if supported {
			want = blockdev.ErrReadOnly
		}
		if err := d.Do(r); !exactly(err, want) {
			s.Errorf("op %d on a read-only device: got %v, want %v", r.Op, err, want)
		}
	}
	d.Must(&blockdev.Request{Op: blockdev.Flush})
	if string(before) != string(d.Read(0, 8192)) {
		s.Errorf("a read-only device changed")
	}
	done()
	if err := dev.Close(); err != nil {
		s.Errorf("close read-only device: %v", err)
	}
}
