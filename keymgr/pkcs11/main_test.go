package pkcs11

import (
	"testing"

	"sealblk/keymgr/kmstest"
)

func TestMain(m *testing.M) { kmstest.Main(m) }
