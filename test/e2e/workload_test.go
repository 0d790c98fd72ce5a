//go:build e2e

package e2e

import (
	"errors"
	"strings"
	"testing"

	"sealblk/internal/leaktest"
	"sealblk/test/guest"
	"sealblk/test/workload"
)

// TestWorkloadsInAGuest: every job of "make bench-guest" has a result with encryption
// off and on, and none is absurdly slower with it.
func TestWorkloadsInAGuest(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest")
	}
	r, err := workload.Run(t.Context(), workload.Options{Program: program, Backend: "tmpfs", Rounds: 1, Quick: true})
	if errors.Is(err, guest.ErrNoAssets) {
		leaktest.Missing(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	if err := errors.Join(r.Write(&table), r.Check()); err != nil {
		t.Error(err)
	}
	t.Log("\n" + table.String())
}
