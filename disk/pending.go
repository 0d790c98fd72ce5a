package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sealblk/internal/atomicfile"
	"sealblk/internal/filelock"
)

// A disk comes to be in steps, each durable before the next:
//
//	disks/NAME.new      the record, written ahead: what is being made and where, and
//	                    which CMKs are about to be asked for its key
//	.ID.new             the backing file, beside where it will be
//	volumes/NAME.img    its name, a second one
//	disks/NAME.json     the record: from here on the disk is there
//
// and then both .new go. A crash before the last step leaves a disk that is not there,
// a crash after it one that is. Whatever it leaves, the next create or import settles:
// disks/NAME.new without a lock on NAME is nobody's.
//
// Of a disk that is imported there is disks/NAME.import instead, which names the CMKs and
// nothing else that matters: the backing file was there before, and is never taken back.

func (c *Catalogue) pendingPath(name string) string { return c.aheadPath(name, pendingSuffix) }

func (c *Catalogue) aheadPath(name, suffix string) string {
	return filepath.Join(c.dir, "disks", name+suffix)
}

const (
	pendingSuffix = ".new"
	importSuffix  = ".import"
)

// claim writes a record ahead, if its name and its backend are free.
func (c *Catalogue) claim(ctx context.Context, r Record) error {
	lock, err := c.lockCatalogue(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	c.sweepRecords(r.Name)
	if err := c.vacant(r); err != nil {
		return err
	}
	err = atomicfile.Write(c.pendingPath(r.Name), r.encode(), 0o600)
	if err == nil {
		err = c.did("claim", r.Name)
	}
	if err != nil {
		return errors.Join(err, atomicfile.Remove(c.pendingPath(r.Name))) // it may be there without being durable
	}
	return nil
}

// vacant checks that a new disk can have its name and its backend.
func (c *Catalogue) vacant(r Record) error {
	if err := c.unregistered(r); err != nil {
		return err
	}
	path, err := c.storeFile(r)
	if err != nil || path == "" || isDevice(path) {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return taken(path)
	}
	return nil
}

// unregistered checks that the catalogue has neither the name nor the backend.
func (c *Catalogue) unregistered(r Record) error {
	if c.registered(r.Name) {
		return withHint(fmt.Errorf("disk %s: %w", r.Name, ErrExists), "choose another name, or delete that disk first")
	}
	name, held := c.holder(r)
	if held {
		return withHint(fmt.Errorf("backend %s: %w as the backend of disk %s", r.Backend, ErrExists, name), "choose another file")
	}
	return nil
}

// registered tells whether a disk is there: even one whose record is damaged is.
func (c *Catalogue) registered(name string) bool {
	_, err := os.Lstat(c.recordPath(name))
	return err == nil
}

// holder is another disk with the backend of r, or one that is being made.
func (c *Catalogue) holder(r Record) (string, bool) {
	b, err := parseBackend(r.Backend)
	if err != nil || b.kind != "file" {
		return "", false
	}
	records, _ := c.List()
	for _, name := range c.pending() {
		if p, err := c.readPending(name); err == nil {
			records = append(records, p)
		}
	}
	for _, other := range records {
		if o, err := parseBackend(other.Backend); err == nil && other.Name != r.Name && samePlace(o, b) {
			return other.Name, true
		}
	}
	return "", false
}

// pending names the disks that are being made, or that a crash left unmade.
func (c *Catalogue) pending() []string { return c.ahead(pendingSuffix) }

func (c *Catalogue) ahead(suffix string) []string {
	found, _ := names(filepath.Join(c.dir, "disks"), suffix)
	return found
}

// making reads the records of the disks that are being made or imported. What a crash
// left unmade, whose lock nobody has, becomes no disk any more.
func (c *Catalogue) making() (records []Record, damaged []error) {
	for _, suffix := range []string{pendingSuffix, importSuffix} {
		r, d := c.coming(suffix)
		records, damaged = append(records, r...), append(damaged, d...)
	}
	return records, damaged
}

func (c *Catalogue) coming(suffix string) (records []Record, damaged []error) {
	for _, name := range c.ahead(suffix) {
		if !filelock.Held(c.lockPath(name)) || c.registered(name) { // what is there is in the list
			continue
		}
		r, err := c.readAhead(name, suffix)
		switch {
		case errors.Is(err, fs.ErrNotExist): // made, or taken back, meanwhile
		case err != nil:
			damaged = append(damaged, err)
		default:
			records = append(records, r)
		}
	}
	return records, damaged
}

func (c *Catalogue) readPending(name string) (Record, error) {
	r, err := c.readAhead(name, pendingSuffix)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		err = withHint(err, "remove that file, and the backing file that it names if that is not needed")
	}
	return r, err
}

func (c *Catalogue) readAhead(name, suffix string) (Record, error) {
	path := c.aheadPath(name, suffix)
	data, err := os.ReadFile(path)
	if err != nil {
		return Record{}, err
	}
	r, err := parseRecord(data)
	if err == nil && r.Name != name {
		err = fmt.Errorf("%w: it names disk %s", ErrRecord, r.Name)
	}
	if err != nil {
		return Record{}, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// commit makes the disk be there. What is left of its making is in nobody's way: if it
// cannot be removed now, settle does it.
func (c *Catalogue) commit(r Record) error {
	err := c.save(r)
	if err == nil {
		err = c.did("commit", r.Name)
	}
	if err != nil {
		return errors.Join(err, atomicfile.Remove(c.recordPath(r.Name))) // it may be there without being durable
	}
	_ = c.takeBack(r)
	return nil
}

// takeBack removes what was made of a disk that is not there, and of one that is what
// only its making needed. The caller has the lock of the disk.
func (c *Catalogue) takeBack(r Record) error {
	remove := c.remove
	if c.registered(r.Name) {
		remove = c.removeDraft
	}
	if err := remove(r); err != nil {
		return fmt.Errorf("take back disk %s: %w", r.Name, err)
	}
	return c.unlink(c.pendingPath(r.Name))
}

// settle takes back what interrupted creates and imports left: of the disk mine, whose
// lock the caller has, and of all whose lock nobody has.
func (c *Catalogue) settle(mine string) error {
	c.settleImports(mine)
	for _, name := range c.pending() {
		if name == mine {
			continue
		}
		if l, err := c.acquire(name); err == nil {
			_ = c.settleOne(name) // its leftovers are not in the way of another disk
			l.release()
		}
	}
	return c.settleOne(mine)
}

// settleImports removes what guards nothing. If it stays, it is in nobody's way.
func (c *Catalogue) settleImports(mine string) {
	for _, name := range c.ahead(importSuffix) {
		if name == mine {
			_ = c.withdrawImport(name)
		} else if l, err := c.acquire(name); err == nil { // or it is another's who is at work
			_ = c.withdrawImport(name)
			l.release()
		}
	}
}

func (c *Catalogue) settleOne(name string) error {
	r, err := c.readPending(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.takeBack(r)
}

func (c *Catalogue) removeDraft(r Record) error {
	path, err := c.storeFile(r)
	if err != nil || path == "" {
		return err
	}
	if _, err := os.Lstat(draft(r, path)); nothingThere(err) {
		return nil
	}
	return c.unlink(draft(r, path))
}

// did tells a test that something was done to the disk; the error it returns is the
// operation's.
func (c *Catalogue) did(operation, path string) error {
	if c.step == nil {
		return nil
	}
	return c.step(operation + " " + strings.TrimPrefix(path, c.dir))
}
