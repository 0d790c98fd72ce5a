package explain

import (
	"os"
	"testing"

	"sealblk/internal/leaktest"
)

// childEnv has the test program do one of children instead of tests.
const childEnv = "EXPLAIN_TEST_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		children[name]()
		return
	}
	leaktest.Main(m)
}
