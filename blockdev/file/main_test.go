package file

import (
	"os"
	"testing"

	"sealblk/internal/leaktest"
)

func TestMain(m *testing.M) {
	if child := children[os.Getenv(childEnv)]; child != nil {
		child()
		return
	}
	leaktest.Main(m)
}
