package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"sealblk/keymgr/aws/awstest"
	"sealblk/keymgr/kmip/kmiptest"
	"sealblk/keymgr/kmstest"
)

// external is a KMS that is not ours, as a test runs it.
type external struct {
	net           *kmstest.Proxy
	key, other    string // URIs
	missing       string // the URI of a key that does not exist
	configuration string
}

// TestExternalKMS runs testdata/kms with each.
func TestExternalKMS(t *testing.T) {
	for name, start := range map[string]func(*testing.T) external{"aws": startAWS, "kmip": startKMIP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start(t).runScripts(t)
		})
	}
}

func startAWS(t *testing.T) external {
	s := awstest.Start(t)
	const prefix = "aws:" + awstest.Region + "/"
	return external{
		net: s.Net, key: prefix + s.NewKey(t), other: prefix + s.NewKey(t), missing: prefix + "alias/none",
		configuration: fmt.Sprintf("[worker]\nkey_deadline = \"5s\"\n[kms.aws]\nendpoint = %q\ncredentials = %q\ntimeout = \"5s\"\n", s.URL, s.Credentials),
	}
}

func startKMIP(t *testing.T) external {
	s := kmiptest.Start(t)
	return external{
		net: s.Net, missing: "kmip:none",
		key: "kmip:" + s.Activate(t, s.NewKey(t, "")), other: "kmip:" + s.Activate(t, s.NewKey(t, "")),
		configuration: fmt.Sprintf("[worker]\nkey_deadline = \"5s\"\n[kms.kmip]\naddress = %q\nca = %q\ncertificate = %q\nkey = %q\ntimeout = \"5s\"\n",
			s.Address, s.CA, s.Certificate, s.Key),
	}
}

func (x external) runScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/kms",
		Setup: func(env *testscript.Env) error {
			stateIn(env)
			env.Setenv("KEY", x.key)
			env.Setenv("OTHERKEY", x.other)
			env.Setenv("NOKEY", x.missing)
			return os.WriteFile(filepath.Join(env.WorkDir, "sealblk.toml"), []byte(x.configuration), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "oneline": oneline, "absent": absent, "await": await, "kms": x.change,
		},
	})
}

// change loses the KMS, or brings it back: kms break|mend.
func (x external) change(ts *testscript.TestScript, _ bool, args []string) {
	switch args[0] {
	case "break":
		x.net.Break(nil)
	case "mend":
		x.net.Mend(nil)
	default:
		ts.Fatalf("kms %s: break or mend", args[0])
	}
}
