package pkcs11

import (
	"fmt"
	"testing"

	"sealblk/internal/leaktest"
	"sealblk/keymgr/secret"
)

func TestMain(m *testing.M) {
	leaktest.Main(m, func() error {
		if n, _ := secret.Live(); n != 0 {
			return fmt.Errorf("%d secrets are left", n)
		}
		return nil
	})
}
