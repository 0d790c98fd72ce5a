//go:build pkcs11

package main

import (
	"testing"

	"github.com/miekg/pkcs11"

	"sealblk/keymgr/pkcs11/softhsm"
)

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
