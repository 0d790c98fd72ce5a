package kmsserver

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"sync"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

const (
	// accessKeysHead is the first line of the file; each line behind it is an access
	// key: id, principal and secret, with a space between them.
	accessKeysHead = "sealblk access keys 1"

	secretText    = 64 // characters of a secret: 32 bytes in hexadecimal
	maxAccessKeys = 1 << 20
)

var accessKeyForm = regexp.MustCompile(`^[A-Za-z0-9]{8,64}$`)

// AccessKey is an access key without its secret.
type AccessKey struct {
	ID        string `json:"access_key_id"`
	Principal string `json:"principal"`
}

// AccessKeys are the access keys of a file, which is read again when it has changed.
// The secrets are in locked memory.
type AccessKeys struct {
	path string

	mu    sync.RWMutex
	stamp stamp
	keys  keyring
}

// stamp tells one content of a file from the next: the file is only ever replaced.
type stamp struct {
	modified time.Time
	size     int64
	inode    uint64
}

// keyring is a parsed file. The secrets are slices of memory.
type keyring struct {
	memory *secret.Buffer
	list   []AccessKey
	secret map[string][]byte
}

// OpenAccessKeys reads a file of access keys, which only its owner may read.
func OpenAccessKeys(path string) (*AccessKeys, error) {
	a := &AccessKeys{path: path}
	if err := a.refresh(); err != nil {
		return nil, err
	}
	return a, nil
}

// Close wipes the secrets.
func (a *AccessKeys) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys.memory.Destroy()
	a.keys, a.stamp = keyring{}, stamp{}
}

// refresh reads the file again if it is another one. What cannot be read leaves no
// access keys.
func (a *AccessKeys) refresh() error {
	now, err := stampOf(a.path)
	a.mu.RLock()
	same := err == nil && now == a.stamp
	a.mu.RUnlock()
	if same {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys.memory.Destroy()
	a.keys, a.stamp = keyring{}, stamp{}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAccessKeys, err)
	}
	keys, read, err := readAccessKeys(a.path)
	if err != nil {
		return err
	}
	a.keys, a.stamp = keys, read
	return nil
}

// use calls f with the principal and the secret of an access key. For one that is not
// there known is false, and the secret is one that nobody has, so that both take the
// same time.
func (a *AccessKeys) use(id string, f func(principal string, known bool, secret []byte) error) error {
	if err := a.refresh(); err != nil {
		return err
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if s, ok := a.keys.secret[id]; ok {
		return f(a.keys.principal(id), true, s)
	}
	return f("", false, nobodys)
}

// nobodys is compared with nothing that can be equal: known is false.
var nobodys = make([]byte, secretText)

func (r *keyring) principal(id string) string {
	for _, k := range r.list {
		if k.ID == id {
			return k.Principal
		}
	}
	return ""
}

func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stampOfInfo(info), nil
}

// readAccessKeys reads a file into locked memory.
func readAccessKeys(path string) (keyring, stamp, error) {
	fail := func(err error) (keyring, stamp, error) {
		return keyring{}, stamp{}, fmt.Errorf("%w: %s: %w", ErrAccessKeys, path, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fail(fmt.Errorf("mode %04o lets others read it, run: chmod 600 %s: %w", mode, path, fs.ErrPermission))
	}
	if !info.Mode().IsRegular() || info.Size() < 1 || info.Size() > maxAccessKeys {
		return fail(errors.New("it is not a file of access keys"))
	}
	memory, err := secret.ReadPipe(f, int(info.Size()))
	if err != nil {
		return fail(err)
	}
	keys, err := parseAccessKeys(memory)
	if err != nil {
		memory.Destroy()
		return fail(err)
	}
	return keys, stampOfInfo(info), nil
}

// parseAccessKeys takes the memory over, unless it fails.
func parseAccessKeys(memory *secret.Buffer) (keyring, error) {
	r := keyring{memory: memory, secret: map[string][]byte{}}
	number := 0
	for line := range bytes.Lines(memory.Bytes()) {
		number++
		text := bytes.TrimSuffix(line, []byte("\n"))
		if number == 1 {
			if string(text) != accessKeysHead {
				return keyring{}, fmt.Errorf("its first line is not %q", accessKeysHead)
			}
			continue
		}
		if err := r.add(text); err != nil {
			return keyring{}, fmt.Errorf("line %d: %w", number, err)
		}
	}
	return r, nil
}

// checkPrincipal also refuses the name under which the KMS records what it does itself.
func checkPrincipal(s string) error {
	if s == local.Itself {
		return fmt.Errorf("principal %q is the KMS itself: %w: choose another name", s, keymgr.ErrInvalid)
	}
	return local.CheckPrincipal(s)
}

func (r *keyring) add(line []byte) error {
	fields := bytes.Split(line, []byte(" "))
	if len(fields) != 3 {
		return errors.New("it does not have three words: id, principal, secret")
	}
	if len(fields[2]) < 16 || len(fields[2]) > 256 {
		return errors.New("the secret does not have 16 to 256 characters")
	}
	k := AccessKey{string(fields[0]), string(fields[1])}
	if !accessKeyForm.MatchString(k.ID) {
		return errors.New("the id is not 8 to 64 letters and digits")
	}
	if err := checkPrincipal(k.Principal); err != nil {
		return err
	}
	if _, twice := r.secret[k.ID]; twice {
		return fmt.Errorf("access key %s stands there twice", k.ID)
	}
	r.list = append(r.list, k)
	r.secret[k.ID] = fields[2]
	return nil
}
