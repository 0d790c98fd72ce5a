package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// Restore makes a KMS in dir from a backup. There must be none, or one without keys.
// Everything is checked before it takes its place, in one step: after a failure or a
// crash there is no KMS in dir, or the one that was. Whoever uses dir meanwhile waits,
// and finds the restored KMS. A damaged audit log is restored as it is, and Options.Warn is
// told. A backup is read as a stream, and only as far as it is authentic. It returns how
// many keys the backup holds.
func Restore(ctx context.Context, dir string, opts Options, passphrase *secret.Buffer, backup io.Reader) (keys int, err error) {
	return restore(ctx, files{dir: dir}, opts, passphrase, backup)
}

func restore(ctx context.Context, into files, opts Options, passphrase *secret.Buffer, backup io.Reader) (int, error) {
	opened, err := openBackup(backup, passphrase)
	if err != nil {
		return 0, err
	}
	defer opened.root.Destroy()
	into.dir = filepath.Clean(into.dir)
	if err := os.MkdirAll(into.dir, 0o700); err != nil {
		return 0, fmt.Errorf("create folder: %w", err)
	}
	restores, err := lockFolder(filepath.Dir(into.dir))
	if err != nil {
		return 0, err
	}
	defer restores.Close()
	held, err := claim(into)
	if err != nil {
		return 0, err
	}
	defer held.Close()
	defer removeUnused(into)
	made := files{dir: into.dir + ".restore", step: into.step}
	// A crash left it. Had it been put in its place, into would have its keys.
	if err := os.RemoveAll(made.dir); err != nil {
		return 0, fmt.Errorf("remove unfinished restore: %w", err)
	}
	// Afterwards it is what could not be restored, or what install found without keys.
	defer os.RemoveAll(made.dir) //nolint:errcheck // the next restore will, too
	if err := unpack(made, opened); err != nil {
		return 0, fmt.Errorf("unpack backup: %w", err)
	}
	unpacked := &store{files: made, root: opened.root, rootSource: opts.Root, sources: opts.Sources}
	if err := unpacked.saveRoot(unpacked.wantedRoot()); err != nil {
		return 0, fmt.Errorf("store root key: %w", err)
	}
	keys, err := checkRestored(ctx, made, opts)
	if err != nil {
		return 0, fmt.Errorf("check backup: %w", err)
	}
	return keys, install(made, into)
}

// lockFolder makes restores below a folder wait for each other: they unpack under the
// same name.
func lockFolder(path string) (*os.File, error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	if err := flock(d); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// claim locks a folder without keys, so that none are made in it before it is replaced.
func claim(into files) (*os.File, error) {
	held, err := into.lock()
	if err != nil {
		return nil, err
	}
	if err := refuseKMS(into); err != nil {
		held.Close()
		return nil, err
	}
	return held, nil
}

// removeUnused takes a folder away that holds nothing but the lock, which the caller
// has. Who waits for it makes the folder again.
func removeUnused(f files) {
	entries, err := os.ReadDir(f.dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != lockFile {
		return
	}
	if removeIfThere(f.path(lockFile)) == nil {
		os.Remove(f.dir) //nolint:errcheck // an empty folder harms nobody
	}
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

func unpack(f files, backup *openedBackup) error {
	if err := errors.Join(f.make(""), f.make("keys")); err != nil {
		return err
	}
	err := backup.each(func(name string, size int64, content io.Reader) error {
		return unpackFile(f, name, size, content)
	})
	if err != nil {
		return err
	}
	there, err := f.exists(indexFile)
	if err == nil && !there { // a new one would be made
		err = badBackup("it holds no " + indexFile)
	}
	return err
}

// checkRestored opens all of a restored folder, and records where it comes from.
func checkRestored(ctx context.Context, f files, opts Options) (keys int, err error) {
	k, err := open(f, opts)
	if err != nil {
		return 0, err
	}
	defer k.Close()
	err = k.call(ctx, Entry{Operation: "Restore"}, func(t *session) error {
		if err := errors.Join(t.checkKeys(), k.checkRestoredAudit(ctx, t)); err != nil {
			return err
		}
		keys = len(t.index.Keys)
		t.index.Backup = &backupMark{k.clock(), t.index.Materials}
		return t.commit()
	})
	return keys, err
}

func (k *KMS) checkRestoredAudit(ctx context.Context, t *session) error {
	log, err := t.viewAudit()
	if err != nil {
		return err
	}
	defer log.close()
	return k.checkAudit(ctx, log)
}

// install puts a finished folder in its place and leaves what was there under the
// finished one's name. The caller has the lock of the place.
func install(made, into files) error {
	if err := refuseKMS(into); err != nil { // put there by somebody who does not ask for the lock
		return err
	}
	err := unix.Renameat2(unix.AT_FDCWD, made.dir, unix.AT_FDCWD, into.dir, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) { // a file system that cannot, like NFS
		removeUnused(into)
		err = os.Rename(made.dir, into.dir) // fails where there is anything again
	}
	if err != nil {
		return fmt.Errorf("put restored KMS in place: %w", err)
	}
	if err := into.did("rename", "restored"); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(into.dir))
}
