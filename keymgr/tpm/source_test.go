package tpm

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"sealblk/internal/swtpm"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

func newRoot(t *testing.T) *secret.Buffer {
	t.Helper()
	b, err := secret.Random(keySize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Destroy)
	return b
}

func wrap(t *testing.T, s Source, root *secret.Buffer) json.RawMessage {
	t.Helper()
	w, err := s.Wrap(root)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(w, root.Bytes()) {
		t.Error("what is stored holds the root key")
	}
	return w
}

func wantOpens(t *testing.T, s Source, w json.RawMessage, root *secret.Buffer) {
	t.Helper()
	got, err := s.Unwrap(w)
	if err != nil || !got.Equal(root) {
		t.Errorf("Unwrap: %v", err)
	}
	got.Destroy()
}

// wantLocked checks that a TPM refuses, and that the user learns why and what to do.
func wantLocked(t *testing.T, s Source, w json.RawMessage, why string) {
	t.Helper()
	got, err := s.Unwrap(w)
	got.Destroy()
	var e *keymgr.Error
	if !errors.Is(err, keymgr.ErrAccessDenied) || !errors.As(err, &e) || e.Code != Code || e.Hint == "" || !strings.Contains(err.Error(), why) {
		t.Errorf("error %v, want one with %q", err, why)
	}
	if err != nil && strings.Contains(err.Error()+e.Hint, "\n") {
		t.Errorf("an error of several lines: %q", err)
	}
}

// extend changes a register, as the start of another program does.
func extend(t *testing.T, s Source, pcr int) {
	t.Helper()
	d, err := s.open()
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	_, err = tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)}}},
	}.Execute(d)
	if err != nil {
		t.Fatal(err)
	}
}

func clearTPM(t *testing.T, s Source) {
	t.Helper()
	d, err := s.open()
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if _, err := (tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}).Execute(d); err != nil {
		t.Fatal(err)
	}
}

// TestSealAndUnseal does it more often than the TPM has places for objects and
// sessions.
func TestSealAndUnseal(t *testing.T) {
	s := Source{Device: swtpm.New(t)}
	for range 20 {
		root := newRoot(t)
		wantOpens(t, s, wrap(t, s, root), root)
	}
}

func TestPCRs(t *testing.T) {
	s := Source{Device: swtpm.New(t), PCRs: []int{7, 0}}
	root := newRoot(t)
	w := wrap(t, s, root)
	extend(t, s, 8)
	wantOpens(t, Source{Device: s.Device}, w, root) // what was sealed says which
	free := wrap(t, Source{Device: s.Device}, root)
	extend(t, s, 7)
	wantLocked(t, s, w, "PCRs differ")
	wantOpens(t, s, free, root)
	wantOpens(t, s, wrap(t, s, root), root)
	for _, bad := range [][]int{{-1}, {24}, {3, 3}} {
		if _, err := (Source{Device: s.Device, PCRs: bad}).Wrap(root); !errors.Is(err, keymgr.ErrInvalid) {
			t.Errorf("PCRs %v: %v", bad, err)
		}
	}
}

func TestOtherTPM(t *testing.T) {
	s := Source{Device: swtpm.New(t)}
	w := wrap(t, s, newRoot(t))
	wantLocked(t, Source{Device: swtpm.New(t)}, w, "another TPM")
	clearTPM(t, s)
	wantLocked(t, s, w, "cleared since")
	root := newRoot(t)
	wantOpens(t, s, wrap(t, s, root), root)
}

// TestAlteredObject: whatever byte is altered, no key comes out.
func TestAlteredObject(t *testing.T) {
	s := Source{Device: swtpm.New(t), PCRs: []int{7}}
	root := newRoot(t)
	var good sealed
	if err := json.Unmarshal(wrap(t, s, root), &good); err != nil {
		t.Fatal(err)
	}
	for _, part := range []*[]byte{&good.Public, &good.Private, &good.Parent} {
		whole := *part
		for i := 0; i < len(whole); i += 5 {
			*part = bytes.Clone(whole)
			(*part)[i] ^= 0x10
			bad, err := json.Marshal(good)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := s.Unwrap(bad); err == nil {
				got.Destroy()
				t.Fatalf("byte %d altered, and opened", i)
			}
		}
		*part = whole
	}
	again, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	wantOpens(t, s, again, root)
	for _, bad := range []string{``, `{}`, `{"public":""}`, `{"pcrs":[99]}`, `{"other":1}`, `[]`} {
		if got, err := s.Unwrap(json.RawMessage(bad)); err == nil {
			got.Destroy()
			t.Errorf("%q opened", bad)
		}
	}
}

func TestNoTPM(t *testing.T) {
	for _, device := range []string{"/nowhere/tpm", "/dev/null", t.TempDir()} {
		s := Source{Device: device}
		_, err := s.Wrap(newRoot(t))
		var e *keymgr.Error
		if err == nil || !errors.Is(err, keymgr.ErrUnreachable) {
			t.Errorf("%s: %v", device, err)
		}
		if device != "/dev/null" && (!errors.As(err, &e) || e.Hint == "") {
			t.Errorf("%s: no hint in %v", device, err)
		}
	}
	if _, err := os.Stat(DefaultDevice); err != nil {
		if _, err := (Source{}).Wrap(newRoot(t)); !errors.Is(err, keymgr.ErrUnreachable) || !strings.Contains(err.Error(), DefaultDevice) {
			t.Errorf("%v", err)
		}
	}
}

func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte("\x80\x01\x00\x00\x00\x0a\x00\x00\x01\x01"))
	f.Add([]byte("\x80\x01\x00\x00\x00\x0c\x00\x00\x00\x00xy"))
	f.Add([]byte("\x80\x01\xff\xff\xff\xff\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		answer, err := readAnswer(bytes.NewReader(data))
		if err == nil && (len(answer) < header || !bytes.Equal(answer, data)) {
			t.Fatalf("read %x of %x", answer, data)
		}
	})
}
