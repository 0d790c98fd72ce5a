// Command sealblk encrypts the disks of QEMU/KVM virtual machines on the host.
//
// The files of this folder hold flags, output and exit codes; what another program
// would want is in the packages below.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"sealblk/keymgr/secret"
)

// version is set by the linker.
var version = "unknown"

func main() { os.Exit(run(os.Args, streams{os.Stdout, os.Stderr})) }

// run is the program: everything but the process's exit.
func run(args []string, out streams) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Any command may come to hold a key: keep the process out of core dumps.
	if err := secret.HardenProcess(); err != nil {
		return report(out.err, fmt.Errorf("protect process: %w", err), false)
	}
	a := newApp(out)
	args, err := reorder(a.cli, args)
	if err == nil {
		err = a.cli.RunContext(ctx, args)
	}
	if err == nil {
		return exitDone
	}
	return report(out.err, err, wantsJSON(args))
}
