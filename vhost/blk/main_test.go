package blk

import (
	"testing"

	"sealblk/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }
