package guest

import (
	"errors"
	"testing"

	"sealblk/internal/leaktest"
)

// ForTest boots a guest for a test, and closes it at the test's end. Without what a
// guest is made of the test is skipped, under CI=true it fails. If the test has
// failed, what the guest said and where its processors are is logged.
func ForTest(t testing.TB, c Config) *VM {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a guest")
	}
	vm, err := Boot(t.Context(), c)
	if errors.Is(err, ErrNoAssets) {
		leaktest.Missing(t, err.Error())
	}
	if failed := (*BootError)(nil); errors.As(err, &failed) {
		t.Fatalf("%v\nits processors:\n%s\nconsole:\n%s", failed, failed.CPUs, failed.Console)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		processors := ""
		if t.Failed() {
			processors = vm.registers()
		}
		vm.Close()
		if t.Failed() {
			t.Logf("the guest's processors:\n%s\nconsole:\n%s", processors, vm.Console())
		}
	})
	return vm
}

// Must runs a script and ends the test unless its status is 0. It returns the output.
func (vm *VM) Must(t testing.TB, script string) string {
	t.Helper()
	r, err := vm.Run(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	return r.Output
}
