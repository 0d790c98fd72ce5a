//go:build pkcs11

package pkcs11

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/miekg/pkcs11"

	"sealblk/keymgr"
)

// module is a PKCS#11 library, which a process starts once.
type module struct {
	path  string
	ctx   *pkcs11.Ctx
	raw   *raw
	users int // guarded by modules.mu

	mu sync.RWMutex // held for writing while the module is started anew
	// started counts the starts; guarded by mu.
	started uint64
}

var modules = struct {
	mu   sync.Mutex
	open map[string]*module
}{open: map[string]*module{}}

// useModule loads and starts a module, or shares one that runs.
func useModule(path string) (*module, error) {
	modules.mu.Lock()
	defer modules.mu.Unlock()
	if m := modules.open[path]; m != nil {
		m.users++
		return m, nil
	}
	m, err := loadModule(path)
	if err != nil {
		return nil, err
	}
	m.users = 1
	modules.open[path] = m
	return m, nil
}

func loadModule(path string) (*module, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, &keymgr.Error{Hint: "install the HSM's software, or correct module in [kms.pkcs11]", Err: fmt.Errorf("load PKCS#11 module: %w", err)}
	}
	m := &module{path: path, ctx: pkcs11.New(path)}
	if m.ctx == nil {
		return nil, &keymgr.Error{Hint: "see whether it is a library for this machine: ldd " + path, Err: fmt.Errorf("load PKCS#11 module %s: it does not load", path)}
	}
	var err error
	if m.raw, err = openRaw(path); err != nil {
		m.ctx.Destroy()
		return nil, err
	}
	if err := m.start(); err != nil {
		m.unload()
		return nil, explain("", "start PKCS#11 module "+path, err)
	}
	return m, nil
}

// start makes the module ready. Another part of the program may have.
func (m *module) start() error {
	err := m.ctx.Initialize()
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		return nil
	}
	return err
}

// restart starts the module anew, unless that was done since the caller looked: it
// looks for its tokens again then. All sessions end.
func (m *module) restart(seen uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.started != seen {
		return nil
	}
	m.started++
	m.ctx.Finalize() //nolint:errcheck // it may not be running
	return m.start()
}

func (m *module) release() {
	modules.mu.Lock()
	defer modules.mu.Unlock()
	if m.users--; m.users > 0 {
		return
	}
	delete(modules.open, m.path)
	m.ctx.Finalize() //nolint:errcheck // nothing is lost
	m.unload()
}

func (m *module) unload() {
	m.raw.close()
	m.ctx.Destroy()
}

// slot finds the token. The caller holds mu.
func (m *module) slot(c Config) (uint, error) {
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return 0, err
	}
	found := []uint{}
	for _, s := range slots {
		if c.Slot != nil {
			if s == *c.Slot {
				return s, nil
			}
			continue
		}
		if info, err := m.ctx.GetTokenInfo(s); err == nil && info.Label == c.Token {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return 0, pkcs11.Error(pkcs11.CKR_TOKEN_NOT_PRESENT)
	case 1:
		return found[0], nil
	}
	return 0, badConfig("name one by slot = NUMBER in [kms.pkcs11]", "%d tokens are called %q", len(found), c.Token)
}
