package wire

import (
	"testing"

	"sealblk/keymgr/kmstest"
)

func TestMain(m *testing.M) { kmstest.Main(m) }
