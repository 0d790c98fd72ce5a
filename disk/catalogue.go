package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"sealblk/blockdev/luks"
	"sealblk/internal/atomicfile"
	"sealblk/internal/linkname"
	"sealblk/keymgr"
)

// Catalogue is the set of disks of one state directory.
type Catalogue struct {
	dir  string
	keys keymgr.KMS
	// step, in tests, is told of each change to files and may fail or end it there.
	step func(operation string) error
	// headerFile, in tests, stands before the file that a header is written to.
	headerFile func(*os.File) luks.File
}

// OpenCatalogue opens the catalogue in a state directory, and makes the directory
// if it is not there. keys takes whole URIs ([keymgr.Set]).
func OpenCatalogue(dir string, keys keymgr.KMS) (*Catalogue, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	c := &Catalogue{dir: abs, keys: keys}
	for _, sub := range []string{"disks", "volumes", "headers", "run"} {
		if err := os.MkdirAll(filepath.Join(abs, sub), 0o700); err != nil {
			return nil, withHint(fmt.Errorf("open state directory: %w", err), "choose another with --state-dir, or run as its owner")
		}
	}
	return c, nil
}

// Dir is the state directory.
func (c *Catalogue) Dir() string { return c.dir }

func (c *Catalogue) recordPath(name string) string {
	return filepath.Join(c.dir, "disks", name+".json")
}
func (c *Catalogue) lockPath(name string) string {
	return filepath.Join(c.dir, "disks", name+".lock")
}

func (c *Catalogue) runtimePath(name string) string {
	return filepath.Join(c.dir, "run", name+".json")
}

// ControlPath is where the export that has a disk listens for control requests.
func (c *Catalogue) ControlPath(name string) string {
	return filepath.Join(c.dir, "run", name+".ctl")
}

// SocketPath is where a disk is exported when the user names no place.
func (c *Catalogue) SocketPath(name string) string {
	return filepath.Join(c.dir, "run", name+".sock")
}

// publicName is the name in run of the file of the export that has a disk: kind is
// "ctl" for its control socket, and "json" for its Runtime. own tells the export from
// others of the disk; a tilde is in no disk's name.
func (c *Catalogue) publicName(name, own, kind string) linkname.Name {
	run := filepath.Join(c.dir, "run")
	return linkname.Name{Own: filepath.Join(run, name+"~"+own+"."+kind), Public: filepath.Join(run, name+"."+kind)}
}

// ControlPaths are the control sockets of all exports of a disk: of the one that has it,
// and of those that stand by.
func (c *Catalogue) ControlPaths(name string) []string { return c.ownFiles(name, "ctl") }

// ControlPathOf is the control socket of one export of a disk, by its pid.
func (c *Catalogue) ControlPathOf(name string, pid int) (path string, ok bool) {
	for _, path := range c.ControlPaths(name) {
		if strings.HasPrefix(filepath.Base(path), fmt.Sprintf("%s~%d-", name, pid)) {
			return path, true
		}
	}
	return "", false
}

// StandbySocketPath is where a disk is exported that is to be taken over, when the
// user names no place.
func (c *Catalogue) StandbySocketPath(name string) string {
	return filepath.Join(c.dir, "run", name+"~incoming.sock")
}

// Get reads the record of a disk.
func (c *Catalogue) Get(name string) (Record, error) {
	if err := CheckName(name); err != nil {
		return Record{}, err
	}
	data, err := os.ReadFile(c.recordPath(name))
	if errors.Is(err, os.ErrNotExist) {
		return Record{}, withHint(fmt.Errorf("disk %s: %w", name, ErrNotFound), "see sealblk disk list; a disk whose record is lost comes back with sealblk disk import")
	}
	if err != nil {
		return Record{}, fmt.Errorf("read record: %w", err)
	}
	r, err := parseRecord(data)
	if err != nil {
		return Record{}, withHint(fmt.Errorf("disk %s: %s: %w", name, c.recordPath(name), err),
			"restore the record from a backup, or remove it and register the disk again with sealblk disk import")
	}
	if r.Name != name {
		return Record{}, fmt.Errorf("disk %s: %s: %w: it names disk %s", name, c.recordPath(name), ErrRecord, r.Name)
	}
	return r, nil
}

// RecordStamp changes with each change of a disk's record, and costs one system call.
// Empty: there is none to be seen.
func (c *Catalogue) RecordStamp(name string) string {
	info, err := os.Stat(c.recordPath(name))
	if err != nil {
		return ""
	}
	inode := uint64(0)
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = st.Ino
	}
	return fmt.Sprint(inode, info.ModTime().UnixNano(), info.Size())
}

// Names lists the disks of a state directory, sorted, without reading their records
// and without making anything: what a shell completes.
func Names(stateDir string) []string {
	all, _ := names(filepath.Join(stateDir, "disks"), ".json")
	return slices.DeleteFunc(all, func(n string) bool { return CheckName(n) != nil })
}

func names(dir, suffix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	slices.Sort(names) // a.json stands before a-b.json, but a after a-b
	return names, err
}

// List reads all records, by name. Damaged ones are left out and returned as errors.
func (c *Catalogue) List() ([]Record, []error) {
	names, err := names(filepath.Join(c.dir, "disks"), ".json")
	if err != nil {
		return nil, []error{fmt.Errorf("list disks: %w", err)}
	}
	var records []Record
	var damaged []error
	for _, name := range names {
		r, err := c.Get(name)
		switch {
		case errors.Is(err, ErrNotFound): // deleted meanwhile
		case err != nil:
			damaged = append(damaged, err)
		default:
			records = append(records, r)
		}
	}
	return records, damaged
}

func (c *Catalogue) save(r Record) error {
	if err := r.validate(); err != nil {
		return err
	}
	return atomicfile.Write(c.recordPath(r.Name), r.encode(), 0o600)
}

// samePlace sees through links: two names of one file are one backend.
func samePlace(a, b backend) bool {
	if a == b {
		return true
	}
	if a.kind != "file" || b.kind != "file" {
		return false
	}
	ia, errA := os.Stat(a.path)
	ib, errB := os.Stat(b.path)
	return errA == nil && errB == nil && os.SameFile(ia, ib)
}

func (c *Catalogue) headerPath(name string) string {
	return filepath.Join(c.dir, "headers", name+".luks")
}

// UsersOf names the disks whose data keys a CMK wraps, in escrow too, or is about to
// wrap. A record that cannot be read is an error: it might be one of them.
//
// Who is about to use a CMK announces it here first and asks the KMS after that. So a
// KMS that keeps others out while it looks here and then takes the key out of use either
// finds the user, or refuses what that asks.
func (c *Catalogue) UsersOf(keyURI string) ([]string, error) {
	making, unreadable := c.making() // first: one that is made meanwhile is in the list
	records, damaged := c.List()
	var names []string
	for _, r := range append(making, records...) {
		if slices.Contains(c.keysOf(r), keyURI) {
			names = append(names, r.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), errors.Join(append(unreadable, damaged...)...)
}

// WrappedBy names the disks that need any CMK of a KMS, by the scheme of its URIs, as
// UsersOf does. A disk that is being made needs none yet.
func (c *Catalogue) WrappedBy(scheme string) ([]string, error) {
	records, damaged := c.List()
	var names []string
	for _, r := range records {
		if slices.ContainsFunc(c.keysOf(r), func(uri string) bool { return schemeOf(uri) == scheme }) {
			names = append(names, r.Name)
		}
	}
	return names, errors.Join(damaged...)
}

// keysOf are the CMKs that a disk needs: what its record says, and its header, which
// may have been changed through another state directory.
func (c *Catalogue) keysOf(r Record) []string {
	uris := []string{r.KeyURI, r.EscrowKeyURI, r.RewrappingTo}
	if !r.Encrypted {
		return uris
	}
	if h, err := c.readHeader(r); err == nil {
		if t, err := h.Token(); err == nil {
			r.adoptKeys(t)
			uris = append(uris, r.KeyURI, r.EscrowKeyURI)
		}
	}
	return uris
}

// Current is a record as the disk's header has it, which knows what was done to the
// disk through another state directory. If the header cannot be read it is the record.
func (c *Catalogue) Current(r Record) Record {
	now := r
	if _, err := c.currentHeader(&now); err != nil {
		return r
	}
	now.GrowingTo = r.GrowingTo
	return now
}

// VersionOf tells which version of a CMK wraps a disk's data key, as the disk's header has
// it, which may have been changed through another state directory. Empty: it is not known,
// or that CMK wraps none.
func (c *Catalogue) VersionOf(name, uri string) string {
	r, err := c.Get(name)
	if err != nil || !r.Encrypted {
		return ""
	}
	h, err := c.readHeader(r)
	if err != nil {
		return ""
	}
	t, err := h.Token()
	if err != nil {
		return ""
	}
	for _, s := range []slot{mainSlot, escrowSlot} {
		if w, there := wrappedIn(t, s); there && w.URI == uri {
			return w.Version
		}
	}
	return ""
}

// KeyOf names the CMK that wraps a disk's data key, as its record has it. While a re-wrap
// is under way, or if it was interrupted, the record names two: the header, which others
// may be able to write to, says only which of them.
func (c *Catalogue) KeyOf(r Record) string {
	if r.RewrappingTo != "" && c.Current(r).KeyURI == r.RewrappingTo {
		return r.RewrappingTo
	}
	return r.KeyURI
}
