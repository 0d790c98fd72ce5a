package disk

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"sealblk/blockdev/blockdevtest"
	"sealblk/keymgr"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

// TestRestoreOnAnotherHost rehearses the loss of a host: a backup of the KMS and copies of
// the images are brought to a second state directory, whose root key is kept by another
// source. There the disk is registered, and has its data.
func TestRestoreOnAnotherHost(t *testing.T) {
	pass := secretOf(t, "correct horse battery")
	lost := newCatalogue(t)
	mustCreate(t, lost, CreateOptions{Name: "db", Encrypted: true})
	data := blockdevtest.Noise(3, diskSize)
	check(t, lost, diskSize, func(d *blockdevtest.Driver) { d.Write(0, data) })
	image, err := os.ReadFile(filepath.Join(lost.dir, "volumes", "db.img"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(image, data[:512]) {
		t.Fatal("the image is not encrypted")
	}
	backup := backupOf(t, lost.dir, pass)
	if err := os.RemoveAll(lost.dir); err != nil {
		t.Fatal(err)
	}

	dir := newDir(t)
	options := local.Options{
		Principal: local.DiskService, Root: local.RootPassphrase,
		Sources: map[string]local.RootSource{local.RootPassphrase: local.PassphraseSource{
			Ask: func(bool) (*secret.Buffer, error) { return pass.Clone() },
		}},
	}
	if n, err := local.Restore(t.Context(), filepath.Join(dir, "kms"), options, pass, bytes.NewReader(backup)); err != nil || n != 1 {
		t.Fatalf("restored %d keys, %v", n, err)
	}
	keys := keymgr.NewSet(keymgr.DefaultRetry, map[string]keymgr.Opener{
		keymgr.SchemeLocal: func(context.Context) (keymgr.KMS, error) { return local.Open(filepath.Join(dir, "kms"), options) },
	})
	defer keys.Close()
	found, err := OpenCatalogue(dir, keys)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "copy.img")
	if err := os.WriteFile(copied, image, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := found.Import(t.Context(), "db", "file:"+copied); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, found, "db")
	check(t, found, diskSize, func(d *blockdevtest.Driver) {
		if !bytes.Equal(d.Read(0, diskSize), data) {
			t.Error("other data came back")
		}
		d.Write(0, data[diskSize/2:])
	})
	mustCreate(t, found, CreateOptions{Name: "new", Encrypted: true})
	wantWhole(t, found, "new")
}

func secretOf(t *testing.T, text string) *secret.Buffer {
	t.Helper()
	b, err := secret.New(len(text))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Destroy)
	copy(b.Bytes(), text)
	return b
}

// backupOf saves the embedded KMS of a state directory.
func backupOf(t *testing.T, dir string, pass *secret.Buffer) []byte {
	t.Helper()
	k, err := local.Open(filepath.Join(dir, "kms"), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	var data bytes.Buffer
	if err := k.Backup(t.Context(), pass, func(write func(io.Writer) error) error { return write(&data) }); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}
