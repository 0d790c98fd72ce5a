package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// Restore makes a KMS in dir from a backup. There must be none, or one without keys.
// Everything is checked before it takes its place, in one step: after a failure or a
// crash dir is what it was. It returns how many keys the backup holds.
func Restore(ctx context.Context, dir string, opts Options, passphrase *secret.Buffer, backup []byte) (keys int, err error) {
	return restore(ctx, files{dir: dir}, opts, passphrase, backup)
}

func restore(ctx context.Context, into files, opts Options, passphrase *secret.Buffer, backup []byte) (int, error) {
	root, stored, err := openBackup(backup, passphrase)
	if err != nil {
		return 0, err
	}
	defer root.Destroy()
	dir := filepath.Clean(into.dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return 0, fmt.Errorf("create folder: %w", err)
	}
	held, err := lockFolder(filepath.Dir(dir))
	if err != nil {
		return 0, err
	}
	defer held.Close()
	if err := refuseKMS(into); err != nil {
		return 0, err
	}
	made := files{dir: dir + ".restore", step: into.step}
	if err := os.RemoveAll(made.dir); err != nil { // a crash left it
		return 0, fmt.Errorf("remove unfinished restore: %w", err)
	}
	defer os.RemoveAll(made.dir) //nolint:errcheck // the next restore will, too
	if err := unpack(made, stored); err != nil {
		return 0, fmt.Errorf("unpack backup: %w", err)
	}
	unpacked := &store{files: made, root: root, rootSource: opts.Root, sources: opts.Sources}
	if err := unpacked.saveRoot(unpacked.wantedRoot()); err != nil {
		return 0, fmt.Errorf("store root key: %w", err)
	}
	keys, err := checkRestored(ctx, made, opts)
	if err != nil {
		return 0, fmt.Errorf("check backup: %w", err)
	}
	return keys, install(made, into)
}

// lockFolder makes restores below a folder wait for each other.
func lockFolder(path string) (*os.File, error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	for {
		if err = unix.Flock(int(d.Fd()), unix.LOCK_EX); err != unix.EINTR { //nolint:errorlint // a bare errno
			break
		}
	}
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return d, nil
}

// refuseKMS keeps a folder in which there are, or were, keys.
func refuseKMS(f files) error {
	s := store{files: f}
	ids, err := s.storedIDs()
	if err != nil {
		return err
	}
	data, err := f.read(indexFile, maxFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var ix struct {
		Body struct{ Keys map[string]uint64 }
	}
	if len(ids) == 0 && (err != nil || json.Unmarshal(data, &ix) == nil && len(ix.Body.Keys) == 0) {
		return nil
	}
	return &keymgr.Error{
		Code: CodeNotEmpty, Hint: "move the folder away, or restore into another state directory",
		Err: fmt.Errorf("restore into %s: there are keys already: %w", f.dir, keymgr.ErrState),
	}
}

func unpack(f files, stored map[string][]byte) error {
	if err := errors.Join(f.make(""), f.make("keys")); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(stored)) {
		id, isRecord := strings.CutSuffix(strings.TrimPrefix(name, "keys/"), ".json")
		if name != indexFile && name != auditFile && (!isRecord || !validID(id) || name != recordFile(id)) {
			return badBackup("it holds a file that is none of a KMS")
		}
		err := f.replace(name, func(w *os.File) error {
			_, err := w.Write(stored[name])
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// checkRestored opens all of a restored folder, and records where it comes from.
func checkRestored(ctx context.Context, f files, opts Options) (keys int, err error) {
	k, err := open(f, opts)
	if err != nil {
		return 0, err
	}
	defer k.Close()
	err = k.call(ctx, Entry{Operation: "Restore"}, func(t *session) error {
		if err := t.checkWhole(); err != nil {
			return err
		}
		keys = len(t.index.Keys)
		t.index.Backup = &backupMark{k.clock(), t.index.Materials}
		return t.commit()
	})
	return keys, err
}

// install puts a finished folder in its place.
func install(made, into files) error {
	dir := filepath.Clean(into.dir)
	err := os.Rename(made.dir, dir)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		err = unix.Renameat2(unix.AT_FDCWD, made.dir, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE)
	}
	if err != nil {
		return fmt.Errorf("put restored KMS in place: %w", err)
	}
	if err := into.did("rename", "restored"); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(dir))
}
