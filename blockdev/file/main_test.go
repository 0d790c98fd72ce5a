package file

import (
	"os"
	"testing"
	"time"

	"sealblk/internal/leaktest"
)

func TestMain(m *testing.M) {
	lockPatience = 50 * time.Millisecond // who holds a lock here does not go away
	if child := children[os.Getenv(childEnv)]; child != nil {
		child()
		return
	}
	leaktest.Main(m)
}
