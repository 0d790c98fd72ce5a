package frontend

import "fmt"

// Do submits one request and waits for it. Nothing else may be in flight.
func (q *Queue) Do(r *Request) error {
	if err := q.Submit(r); err != nil {
		return err
	}
	if err := q.Notify(); err != nil {
		return err
	}
	if _, err := q.Wait(q.syncDone[:]); err != nil {
		return err
	}
	return r.Err()
}

// syncSize is the buffer of ReadAt, WriteAt and the others, in bytes.
const syncSize = 1 << 20

func (q *Queue) syncRequest() (*Request, error) {
	if q.sync == nil {
		r, err := q.NewRequest(syncSize)
		if err != nil {
			return nil, err
		}
		q.sync = r
	}
	return q.sync, nil
}

// ReadAt reads from the byte offset off, a multiple of SectorSize as len(p) is,
// with as many requests as it takes. Nothing else may be in flight.
func (q *Queue) ReadAt(p []byte, off int64) (int, error) {
	return q.transfer(TypeIn, p, off)
}

// WriteAt writes likewise.
func (q *Queue) WriteAt(p []byte, off int64) (int, error) {
	return q.transfer(TypeOut, p, off)
}

func (q *Queue) transfer(typ uint32, p []byte, off int64) (int, error) {
	r, err := q.syncRequest()
	if err != nil {
		return 0, err
	}
	done := 0
	for done < len(p) {
		part := p[done:min(len(p), done+syncSize)]
		r.Type, r.Sector, r.Length = typ, uint64(off+int64(done))/SectorSize, len(part)
		if typ == TypeOut {
			copy(r.Data, part)
		}
		if err := q.Do(r); err != nil {
			return done, fmt.Errorf("transfer %d bytes at %d: %w", len(part), off+int64(done), err)
		}
		if typ == TypeIn {
			copy(part, r.Data)
		}
		done += len(part)
	}
	return done, nil
}

// Flush makes every write that completed before it durable.
func (q *Queue) Flush() error {
	r, err := q.syncRequest()
	if err != nil {
		return err
	}
	r.Type, r.Sector, r.Length = TypeFlush, 0, 0
	return q.Do(r)
}

// Erase sends a TypeDiscard or TypeWriteZeroes of these ranges.
func (q *Queue) Erase(typ uint32, ranges ...Range) error {
	r, err := q.syncRequest()
	if err != nil {
		return err
	}
	r.Type, r.Sector, r.Length = typ, 0, len(ranges)*RangeSize
	data := r.Data[:0]
	for _, c := range ranges {
		data = c.Append(data)
	}
	return q.Do(r)
}

// GetID asks for the disk's serial, without the zeros that pad it.
func (q *Queue) GetID() (string, error) {
	r, err := q.syncRequest()
	if err != nil {
		return "", err
	}
	r.Type, r.Sector, r.Length = TypeGetID, 0, IDSize
	clear(r.Data[:IDSize])
	if err := q.Do(r); err != nil {
		return "", err
	}
	id := r.Data[:IDSize]
	for n, c := range id {
		if c == 0 {
			id = id[:n]
			break
		}
	}
	return string(id), nil
}
