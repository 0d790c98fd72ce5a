package kmsserver

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"sealblk/internal/atomicfile"
	"sealblk/internal/filelock"
	"sealblk/keymgr/secret"
)

// CreateAccessKey adds an access key for a principal to a file, which it makes if need
// be, and hands its secret to save before that; the secret is text in locked memory.
func CreateAccessKey(ctx context.Context, path, principal string, save func(id string, text *secret.Buffer) error) (AccessKey, error) {
	if err := checkPrincipal(principal); err != nil {
		return AccessKey{}, err
	}
	id, err := randomText(12)
	if err != nil {
		return AccessKey{}, err
	}
	defer id.Destroy()
	text, err := randomText(secretText / 2)
	if err != nil {
		return AccessKey{}, err
	}
	defer text.Destroy()
	k := AccessKey{"SEALBLK" + string(id.Bytes()), principal}
	err = edit(ctx, path, func(keys *keyring) error {
		if err := save(k.ID, text); err != nil {
			return err
		}
		keys.list = append(keys.list, k)
		keys.secret[k.ID] = text.Bytes()
		return nil
	})
	return k, err
}

// DeleteAccessKey takes an access key out of a file. Servers that use the file refuse
// it from then on.
func DeleteAccessKey(ctx context.Context, path, id string) error {
	return edit(ctx, path, func(keys *keyring) error {
		i := slices.IndexFunc(keys.list, func(k AccessKey) bool { return k.ID == id })
		if i < 0 {
			return fmt.Errorf("delete access key %q: %w", id, ErrNoAccessKey)
		}
		keys.list = slices.Delete(keys.list, i, i+1)
		return nil
	})
}

// ListAccessKeys lists the access keys of a file, none if it is not there.
func ListAccessKeys(path string) ([]AccessKey, error) {
	keys, _, err := readAccessKeys(path)
	if errors.Is(err, fs.ErrNotExist) {
		return []AccessKey{}, nil
	}
	keys.memory.Destroy()
	return append([]AccessKey{}, keys.list...), err
}

// edit replaces a file while nobody else does.
func edit(ctx context.Context, path string, change func(*keyring) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make folder of access keys: %w", err)
	}
	lock, err := filelock.Wait(ctx, path+".lock")
	if err != nil {
		return err
	}
	defer lock.Close()
	own := func(name string) bool { return name == filepath.Base(path) }
	if err := atomicfile.Sweep(filepath.Dir(path), own); err != nil {
		return err // what an edit left that was killed holds every secret
	}
	keys, _, err := readAccessKeys(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	defer keys.memory.Destroy()
	if keys.secret == nil {
		keys.secret = map[string][]byte{}
	}
	if err := change(&keys); err != nil {
		return err
	}
	return keys.write(path)
}

// write replaces the file; its text is put together in locked memory.
func (r *keyring) write(path string) error {
	size := len(accessKeysHead) + 1
	for _, k := range r.list {
		size += len(k.ID) + len(k.Principal) + len(r.secret[k.ID]) + 3
	}
	memory, err := secret.New(size)
	if err != nil {
		return err
	}
	defer memory.Destroy()
	text := append(memory.Bytes()[:0], accessKeysHead+"\n"...)
	for _, k := range r.list {
		text = append(append(text, k.ID+" "+k.Principal+" "...), r.secret[k.ID]...)
		text = append(text, '\n')
	}
	return atomicfile.Write(path, text, 0o600)
}

// randomText is so many random bytes in hexadecimal.
func randomText(size int) (*secret.Buffer, error) {
	raw, err := secret.Random(size)
	if err != nil {
		return nil, err
	}
	defer raw.Destroy()
	text, err := secret.New(hex.EncodedLen(size))
	if err != nil {
		return nil, err
	}
	hex.Encode(text.Bytes(), raw.Bytes())
	return text, nil
}

func stampOfInfo(info fs.FileInfo) stamp {
	s := stamp{modified: info.ModTime(), size: info.Size()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s
}
