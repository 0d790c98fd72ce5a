//go:build pkcs11

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/miekg/pkcs11"
	"golang.org/x/sys/unix"

	"sealblk/keymgr/pkcs11/softhsm"
)

// TestGivesUpThePIN: the first Ctrl-C ends a command that waits for the PIN of the HSM.
func TestGivesUpThePIN(t *testing.T) {
	token := softhsm.New(t)
	token.Key(t, "disks", []byte{1})
	t.Setenv("SOFTHSM2_CONF", token.Config)
	state := newState(t)
	fifo, config := filepath.Join(state, "pin"), filepath.Join(state, "pin.toml")
	text := fmt.Sprintf("[kms.local.root]\npkcs11_key = \"disks\"\n[kms.pkcs11]\nmodule = %q\ntoken = %q\npin_file = %q\ntimeout = \"1h\"\n",
		token.Module, token.Label, fifo)
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.WriteFile(config, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"--config", config, "kms", "root", "set", "--source", "pkcs11"},
		{"--config", config, "disk", "create", "new", "--size", "1M", "--key", "pkcs11:disks"},
	} {
		wantGivenUp(t, state, fifo, args...)
	}
}

// TestPKCS11Scripts runs the program with an HSM.
func TestPKCS11Scripts(t *testing.T) {
	token := softhsm.New(t)
	token.Key(t, "disks", []byte{1})
	token.Key(t, "root", []byte{1})
	token.Key(t, "more", []byte{2})
	token.Key(t, "open", []byte{1}, pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true))
	runScripts(t, "testdata/pkcs11", map[string]string{
		"SOFTHSM2_CONF": token.Config, "MODULE": token.Module, "TOKEN": token.Label, "PIN_FILE": token.PINFile,
	})
}
