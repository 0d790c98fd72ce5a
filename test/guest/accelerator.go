package guest

import (
	"context"
	"fmt"
	"os"
	"time"
)

// What can run a guest's CPUs: emulation, or the processor itself.
const (
	TCG = "tcg"
	KVM = "kvm"
)

// kvmPatience is how long a guest may take to boot under a KVM that works.
const kvmPatience = 30 * time.Second

// FindAccelerator is KVM where it boots a guest, and else TCG and why: a machine may
// have a /dev/kvm that runs none.
func FindAccelerator(ctx context.Context) (name, why string) {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return TCG, fmt.Sprintf("no KVM: %v", err)
	}
	f.Close()
	ctx, cancel := context.WithTimeout(ctx, kvmPatience)
	defer cancel()
	vm, err := Boot(ctx, Config{Accelerator: KVM})
	if err != nil {
		return TCG, fmt.Sprintf("KVM boots no guest: %v", err)
	}
	vm.Close()
	return KVM, ""
}
