package memory

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"

	"golang.org/x/sys/unix"
)

// MaxRegions is how many regions a table holds: what GET_MAX_MEM_SLOTS answers,
// and what the kernel's vhost and QEMU count on.
const MaxRegions = 509

// Table is an immutable set of regions that do not overlap. The zero Table and a
// nil one are empty.
type Table struct {
	byGuest []*Mapping // in order of guest-physical address
	byUser  []*Mapping // the same in order of user address
}

// New maps regions[i] from fds[i]. It owns the descriptors from the call on.
func New(regions []Region, fds []int) (*Table, error) {
	if len(regions) != len(fds) {
		closeAll(fds)
		return nil, fmt.Errorf("map %d regions from %d files: %w", len(regions), len(fds), ErrFileCount)
	}
	t := &Table{}
	for i := range regions {
		next, err := t.With(regions[i], fds[i])
		if err != nil {
			closeAll(fds[i+1:])
			return nil, errors.Join(err, t.Close())
		}
		t = next
	}
	return t, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// Len is the number of regions.
func (t *Table) Len() int {
	if t == nil {
		return 0
	}
	return len(t.byGuest)
}

// With returns a table with one region more, mapped from fd, which it owns from
// the call on.
func (t *Table) With(r Region, fd int) (*Table, error) {
	if err := t.admit(&r); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("add %v: %w", &r, err)
	}
	m, err := openMapping(r, fd)
	if err != nil {
		return nil, err
	}
	return newTable(append(slices.Clone(t.mappings()), m)), nil
}

func (t *Table) admit(r *Region) error {
	if err := r.check(); err != nil {
		return err
	}
	if t.Len() >= MaxRegions {
		return ErrTooMany
	}
	for _, m := range t.mappings() {
		if m.overlaps(r) {
			return ErrOverlap
		}
	}
	return nil
}

// Without returns a table that lacks the region with the addresses and size of r,
// and the mapping that the caller closes once nobody uses it any more.
func (t *Table) Without(r Region) (*Table, *Mapping, error) {
	i := slices.IndexFunc(t.mappings(), func(m *Mapping) bool { return m.same(&r) })
	if i < 0 {
		return nil, nil, fmt.Errorf("remove %v: %w", &r, ErrNotFound)
	}
	gone := t.byGuest[i]
	return newTable(slices.Delete(slices.Clone(t.byGuest), i, i+1)), gone, nil
}

// Close closes all mappings of the table, and so of all tables that share them.
func (t *Table) Close() error {
	var errs []error
	for _, m := range t.mappings() {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// TranslateUser returns the n bytes at a user address, which must lie in one region.
func (t *Table) TranslateUser(addr, n uint64) ([]byte, error) {
	ms := t.byUserAddr()
	i := sort.Search(len(ms), func(i int) bool { return ms[i].UserAddr > addr }) - 1
	if i >= 0 {
		if m := ms[i]; addr-m.UserAddr < m.Size && n <= m.Size-(addr-m.UserAddr) {
			off := addr - m.UserAddr
			return m.bytes[off : off+n : off+n], nil
		}
	}
	return nil, fmt.Errorf("translate %d bytes at user address %#x: %w", n, addr, ErrUnmapped)
}

func (t *Table) mappings() []*Mapping {
	if t == nil {
		return nil
	}
	return t.byGuest
}

func (t *Table) byUserAddr() []*Mapping {
	if t == nil {
		return nil
	}
	return t.byUser
}

// newTable takes over ms.
func newTable(ms []*Mapping) *Table {
	t := &Table{byGuest: ms, byUser: slices.Clone(ms)}
	slices.SortFunc(t.byGuest, func(a, b *Mapping) int { return cmp.Compare(a.GuestAddr, b.GuestAddr) })
	slices.SortFunc(t.byUser, func(a, b *Mapping) int { return cmp.Compare(a.UserAddr, b.UserAddr) })
	return t
}
