//go:build pkcs11

package pkcs11

import (
	"fmt"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"sealblk/keymgr/kmstest"
	"sealblk/keymgr/pkcs11/softhsm"
)

// Time-outs: short is waited for, patience is for calls that end.
const short, patience = 900 * time.Millisecond, 20 * time.Second

func TestConformance(t *testing.T) {
	kmstest.Run(t, func(t testing.TB) *kmstest.Subject {
		token := softhsm.New(t)
		c := configOf(token)
		c.Timeout = patience
		k, err := open(c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close() })
		s := &subject{token: token, module: k.token.module, versions: map[string]byte{}}
		return &kmstest.Subject{
			KMS: k, Scheme: Scheme, UnknownKey: "nothing", Timeout: short,
			NewKey: s.newKey, Rotate: s.rotate, Disable: s.disable, Enable: s.enable,
			// Nobody waits for a module that hangs; a busy machine may take its time otherwise.
			Hang:  func(t testing.TB) { k.token.config.Timeout = short; s.hang(t) },
			Mend:  func(t testing.TB) { k.token.config.Timeout = patience; s.mend(t) },
			Break: s.takeOut,
			Lacks: map[kmstest.Capability]string{
				kmstest.Denying:    "a PIN opens all keys of a token alike",
				kmstest.Throttling: "SoftHSM has no limit of calls or sessions (what a token answers at its limit: TestAnswersOfAToken)",
			},
		}
	})
}

// subject is a token, and what the suite does to it.
type subject struct {
	token    *softhsm.Token
	module   *module
	versions map[string]byte
	undo     func()
}

func (s *subject) newKey(t testing.TB) string {
	label := fmt.Sprint("key-", len(s.versions))
	s.rotate(t, label)
	return label
}

func (s *subject) rotate(t testing.TB, label string) {
	s.versions[label]++
	s.token.Key(t, label, []byte{s.versions[label]})
}

func (s *subject) disable(t testing.TB, label string) { s.permit(t, label, false) }

func (s *subject) enable(t testing.TB, label string) { s.permit(t, label, true) }

func (s *subject) permit(t testing.TB, label string, yes bool) {
	s.token.Set(t, label, pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, yes), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, yes))
}

func (s *subject) takeOut(t testing.TB) { s.undo = s.token.Remove(t) }

// hang keeps all calls from the module, as one that does not answer would.
func (s *subject) hang(testing.TB) {
	s.module.mu.Lock()
	s.undo = s.module.mu.Unlock
}

func (s *subject) mend(testing.TB) { s.undo() }
