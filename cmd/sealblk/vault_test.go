package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"sealblk/keymgr/kmstest"
	"sealblk/keymgr/vault/vaulttest"
)

// TestVault runs testdata/vault with an OpenBao that has the keys disks and more.
func TestVault(t *testing.T) {
	server := vaulttest.Start(t)
	host := server.NewHost(t, "host")
	host.NewKey(t, "disks")
	host.NewKey(t, "more")
	proxy := kmstest.NewProxy(t, server.Addr)
	role, secretID := host.AppRole(t, "1h", "0")
	testscript.Run(t, testscript.Params{
		Dir: "testdata/vault",
		Setup: func(env *testscript.Env) error {
			stateIn(env)
			config := fmt.Sprintf("[kms.vault]\naddress = %q\nca_file = %q\nrole_id = %q\nsecret_id_file = %q\ntimeout = \"2s\"\n"+
				"[worker]\nkey_check_interval = \"1s\"\nkey_deadline = \"3s\"\n",
				"https://"+proxy.Addr(), server.CAFile, role, filepath.Join(env.WorkDir, "secret-id"))
			if err := os.WriteFile(filepath.Join(env.WorkDir, "secret-id"), []byte(secretID), 0o600); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(env.WorkDir, "sealblk.toml"), []byte(config), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "oneline": oneline, "absent": absent, "await": await,
			"vault": func(_ *testscript.TestScript, _ bool, args []string) {
				administer(t, server, proxy, args)
			},
		},
	})
}

// administer changes a key, or the way to the server: vault disable|enable|rotate KEY,
// vault break|mend.
func administer(t *testing.T, s *vaulttest.Server, way *kmstest.Proxy, args []string) {
	t.Helper()
	switch args[0] {
	case "disable":
		s.Do(t, http.MethodDelete, "transit/keys/"+args[1]+"/soft-delete", nil)
	case "enable":
		s.Do(t, http.MethodPut, "transit/keys/"+args[1]+"/soft-delete-restore", nil)
	case "rotate":
		s.Do(t, http.MethodPut, "transit/keys/"+args[1]+"/rotate", nil)
	case "break":
		way.Break(t)
	case "mend":
		way.Mend(t)
	default:
		t.Fatalf("vault %q: disable, enable, rotate, break or mend", args)
	}
}
