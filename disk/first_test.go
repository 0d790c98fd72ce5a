package disk

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/luks"
	"sealblk/internal/leaktest"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

func init() {
	operations["open"] = func(ctx context.Context, c *Catalogue) error {
		d, err := c.Open(ctx, "db", OpenOptions{})
		if err != nil {
			return err
		}
		return d.Close()
	}
}

// sealed lets nothing through that shows a data key.
type sealed struct{ *keymgr.Set }

func (sealed) GenerateDataKey(context.Context, string, keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
	return nil, keymgr.WrappedKey{}, errors.New("a data key was seen")
}

func (sealed) Decrypt(context.Context, keymgr.WrappedKey, keymgr.Context) (*secret.Buffer, error) {
	return nil, errors.New("a data key was seen")
}

// createSealed makes the disk db through a KMS that shows no data key.
func createSealed(t *testing.T, c *Catalogue, o CreateOptions) Record {
	t.Helper()
	set := c.keys.(*keymgr.Set)
	c.keys = sealed{set}
	defer func() { c.keys = set }()
	o.Name, o.NoPlaintext = "db", true
	return mustCreate(t, c, o)
}

// TestCreateWithoutPlaintext: the disk is there, opens with nothing, and is a disk as
// any other once it was opened.
func TestCreateWithoutPlaintext(t *testing.T) {
	for name, o := range map[string]CreateOptions{"file": {}, "4096": {SectorSize: 4096}, "header by itself": {Backend: "memory:"}} {
		t.Run(name, func(t *testing.T) {
			c := newCatalogue(t)
			r := createSealed(t, c, o)
			if !r.Encrypted || !r.DigestPending || !must(c.Get("db")).DigestPending {
				t.Errorf("%+v", r)
			}
			if found, err := c.Check(t.Context(), "db"); err != nil || found[len(found)-1].Result != OK || !strings.Contains(found[len(found)-1].Detail, "first opened") {
				t.Errorf("check: %v, %v", found, err)
			}
			before := files(t, c.dir)
			for _, o := range []OpenOptions{{ReadOnly: true}, {Standby: true}} {
				if d, err := c.Open(t.Context(), "db", o); !errors.Is(err, luks.ErrDigestPending) {
					closeDisk(d)
					t.Errorf("opened with %+v: %v", o, err)
				}
			}
			if dk, err := c.ExportKey(t.Context(), "db", "k"); !errors.Is(err, luks.ErrDigestPending) {
				dk.Destroy()
				t.Errorf("export-key: %v", err)
			}
			if d := differ(before, files(t, c.dir)); len(d) > 0 {
				t.Errorf("changed: %v", d)
			}
			data := blockdevtest.Noise(1, diskSize)
			check(t, c, diskSize, func(d *blockdevtest.Driver) { d.Write(0, data) })
			if must(c.Get("db")).DigestPending || c.Current(must(c.Get("db"))).DigestPending {
				t.Error("still pending")
			}
			if o.Backend == "" {
				check(t, c, diskSize, func(d *blockdevtest.Driver) {
					if string(d.Read(0, diskSize)) != string(data) {
						t.Error("reads something else")
					}
				})
			}
			wantWhole(t, c, "db")
			keyOf(t, c, "db")
		})
	}
}

// TestFirstOpenElsewhere: a disk that one host made and another registers and opens.
func TestFirstOpenElsewhere(t *testing.T) {
	a := newCatalogue(t)
	createSealed(t, a, CreateOptions{})
	b := secondHost(t, a, "db")
	if r := must(b.Get("db")); !r.DigestPending {
		t.Errorf("registered as %+v", r)
	}
	check(t, b, diskSize, func(d *blockdevtest.Driver) { d.Write(0, blockdevtest.Noise(1, 4096)) })
	wantWhole(t, b, "db")
	wantWhole(t, a, "db") // its record is brought up to date
	if must(a.Get("db")).DigestPending {
		t.Error("the first host does not know")
	}
}

// TestFirstOpenKilledAtEveryStep: the digest is pending still, or made; the next open
// ends it.
func TestFirstOpenKilledAtEveryStep(t *testing.T) {
	saw := 0
	for n, more := 1, true; more; n++ {
		c := newCatalogue(t)
		createSealed(t, c, CreateOptions{})
		more = killedAt(t, c.dir, n, "open")
		saw++
		wantWhole(t, c, "db")
		if must(c.Get("db")).DigestPending {
			t.Errorf("step %d: pending", n)
		}
	}
	if saw < 2 {
		t.Errorf("%d steps", saw)
	}
}

// TestPutBackToPending: whoever can write to the header, or to header and record, lets
// no other key in, and none at all.
func TestPutBackToPending(t *testing.T) {
	c := newCatalogue(t)
	r := createSealed(t, c, CreateOptions{})
	pendingRecord, pendingHead := must(os.ReadFile(c.recordPath("db"))), must(os.ReadFile(r.Where()))[:2*headerCopy]
	check(t, c, diskSize, func(d *blockdevtest.Driver) { d.Write(4096, blockdevtest.Noise(1, 4096)) })
	record, img := must(os.ReadFile(c.recordPath("db"))), must(os.ReadFile(r.Where()))
	// A blob of the same lineage with another key, as an insider of the KMS can make one.
	foreign := must(c.keys.GenerateDataKeyWithoutPlaintext(t.Context(), keymgr.DefaultURI, contextOf(r.Lineage)))
	put := func(head, rec []byte, blob []byte) {
		t.Helper()
		data := append([]byte(nil), img...)
		copy(data, head)
		if err := errors.Join(os.WriteFile(r.Where(), data, 0o600), os.WriteFile(c.recordPath("db"), rec, 0o600)); err != nil {
			t.Fatal(err)
		}
		if blob == nil {
			return
		}
		f, err := os.OpenFile(r.Where(), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		h, err := luks.Open(f)
		if err != nil {
			t.Fatal(err)
		}
		err = luks.Update(f, h, func(h *luks.Header) error {
			tok, err := h.Token()
			tok.WrappedKey = blob
			return errors.Join(err, h.SetToken(tok))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, x := range map[string]struct {
		head, record, blob []byte
		want               error
	}{
		"header":                              {pendingHead, record, nil, ErrMismatch},
		"header, another key":                 {pendingHead, record, foreign.Blob, ErrMismatch},
		"header and record":                   {pendingHead, pendingRecord, nil, ErrMismatch},
		"header and record, another key":      {pendingHead, pendingRecord, foreign.Blob, ErrMismatch},
		"another key, the digest as it was":   {img, record, foreign.Blob, luks.ErrWrongKey},
		"another key, and the record pending": {img, pendingRecord, foreign.Blob, luks.ErrWrongKey},
	} {
		put(x.head, x.record, x.blob)
		before := files(t, c.dir)
		if d, err := c.Open(t.Context(), "db", OpenOptions{}); !errors.Is(err, x.want) {
			closeDisk(d)
			t.Errorf("%s: open: %v", name, err)
		}
		other := must(OpenCatalogue(t.TempDir(), c.keys))
		if _, err := other.Import(t.Context(), "db", r.Backend); !errors.Is(err, x.want) {
			t.Errorf("%s: import: %v", name, err)
		}
		if d := differ(before, files(t, c.dir)); len(d) > 0 {
			t.Errorf("%s: changed: %v", name, d)
		}
	}
	put(img, record, nil)
	wantWhole(t, c, "db")
	// The record alone says pending: the digest is there, and decides.
	put(img, pendingRecord, nil)
	wantWhole(t, c, "db")
}

// TestBlobOfAnotherDiskWhilePending: the KMS tells.
func TestBlobOfAnotherDiskWhilePending(t *testing.T) {
	s := newScene(t)
	if err := s.Delete("db"); err != nil {
		t.Fatal(err)
	}
	createSealed(t, s.Catalogue, CreateOptions{})
	s.transplant("tokens", "0", "wrapped_key")
	if d, err := s.Open(t.Context(), "db", OpenOptions{}); !errors.Is(err, keymgr.ErrContextMismatch) {
		closeDisk(d)
		t.Errorf("open: %v", err)
	}
}

// TestLostHoles: a copy of a disk that was never written is never written either, also
// where it has no holes.
func TestLostHoles(t *testing.T) {
	c := newCatalogue(t)
	r := createSealed(t, c, CreateOptions{})
	img := must(os.ReadFile(r.Where()))
	if err := os.WriteFile(r.Where(), img, 0o600); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, c, "db")
}

// TestCryptsetupAfterFirstOpen: stock tools open the disk with its key.
func TestCryptsetupAfterFirstOpen(t *testing.T) {
	tool := leaktest.Tool(t, "cryptsetup")
	c := newCatalogue(t)
	r := createSealed(t, c, CreateOptions{})
	wantWhole(t, c, "db")
	dk := keyOf(t, c, "db")
	path := filepath.Join(newDir(t), "key")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(dk.WritePipe(f), f.Close()); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), tool, "open", "--type", "luks2", "--test-passphrase", "--key-size", "512", "--volume-key-file", path, r.Where()).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
