package dirtylog

import (
	"fmt"

	"golang.org/x/sys/unix"

	"sealblk/vhost/memory"
)

const (
	// PageSize is what a bit stands for, in bytes.
	PageSize = 4096

	pageShift = 12
	wordShift = 5 // bits of a word
	wordBits  = 1 << wordShift
)

// Log is a dirty log that is mapped.
type Log struct {
	table *memory.Table // the log's file as one region
	words words
	pages uint64
}

// Open maps the size bytes at offset of a file. It owns fd from the call on, also
// when it fails.
func Open(fd int, size, offset uint64) (*Log, error) {
	if err := check(fd, size); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("map dirty log of %d bytes at %d: %w", size, offset, err)
	}
	table, err := memory.New([]memory.Region{{Size: size, FileOffset: offset}}, []int{fd})
	if err != nil {
		return nil, fmt.Errorf("map dirty log: %w", err)
	}
	bytes, err := table.TranslateUser(0, size)
	if err != nil {
		return nil, fmt.Errorf("map dirty log: %w", err)
	}
	return &Log{table: table, words: newWords(bytes), pages: 8 * size}, nil
}

func check(fd int, size uint64) error {
	if size == 0 {
		return ErrEmpty
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return ErrFile
	}
	return nil
}

// Close unmaps the log.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	return l.table.Close()
}

// Contains tells whether addr, an address in this process, lies in the log.
func (l *Log) Contains(addr uintptr) bool { return l != nil && l.table.Contains(addr) }

// Covers tells whether the log has a bit for each of the n bytes at a guest-physical
// address.
func (l *Log) Covers(addr, n uint64) bool {
	return n == 0 || addr+(n-1) >= addr && (addr+(n-1))>>pageShift < l.pages
}

// Mark marks the pages of the n bytes at a guest-physical address, or none and
// returns ErrOutside.
func (l *Log) Mark(addr, n uint64) error {
	if n == 0 {
		return nil
	}
	if !l.Covers(addr, n) {
		return ErrOutside
	}
	first, last := addr>>pageShift, (addr+(n-1))>>pageShift
	for first <= last {
		k := min(last-first+1, wordBits-first%wordBits)
		l.words.set(first>>wordShift, uint32((1<<k-1)<<(first%wordBits)))
		first += k
	}
	return nil
}
