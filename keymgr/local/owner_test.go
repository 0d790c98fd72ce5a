package local

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"
)

const nobody = 65534

// giveAway makes a file or folder one of another user.
func giveAway(t *testing.T, path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	if err := os.Chown(path, nobody, -1); err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, dir string) error {
	t.Helper()
	k, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	defer k.Close()
	_, err = k.CreateKey(t.Context(), CreateOptions{})
	return err
}

func TestFolderOfAnotherUserIsRefused(t *testing.T) {
	dir := newFolder(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{dir, dir + "/keys"} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		giveAway(t, folder)
		err := create(t, dir)
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "chown") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", folder, err)
		}
		if err := os.Chown(folder, 0, -1); err != nil {
			t.Fatal(err)
		}
	}
	if err := create(t, dir); err != nil {
		t.Errorf("given back: %v", err)
	}
}

// TestRootKeyIsNotWrittenIntoAFileThatIsThere: who made it may have it open.
func TestRootKeyIsNotWrittenIntoAFileThatIsThere(t *testing.T) {
	dir := newFolder(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	prepared, err := os.OpenFile(dir+"/"+rootFile+temporary, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer prepared.Close()
	if err := create(t, dir); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(prepared); err != nil || len(got) != 0 {
		t.Errorf("%d bytes of the root key can be read, %v", len(got), err)
	}
}

func TestRootKeyOfAnotherUserIsRefused(t *testing.T) {
	dir, _, _ := populated(t)
	giveAway(t, dir+"/"+rootFile)
	_, err := Open(dir, Options{})
	e := wantError(t, "root key of another user", err, fs.ErrPermission, CodeAccessDenied)
	if !strings.Contains(e.Hint, "chown") {
		t.Errorf("hint %q", e.Hint)
	}
}
