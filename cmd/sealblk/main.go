// Command sealblk encrypts the disks of QEMU/KVM virtual machines on the host.
//
// The files of this folder hold flags, output and exit codes; what another program
// would want is in the packages below.
package main

import (
	"fmt"
	"os"

	"sealblk/keymgr/secret"
)

// version is set by the linker.
var version = "unknown"

func main() { os.Exit(run(os.Args, streams{os.Stdout, os.Stderr})) }

// run is the program: everything but the process's exit.
func run(args []string, out streams) int {
	ctx, stop := interruptible()
	defer stop()
	// Any command may come to hold a key: keep the process out of core dumps.
	if err := secret.HardenProcess(); err != nil {
		return report(out.err, fmt.Errorf("protect process: %w", err), wantsJSON(args))
	}
	rootPassphrase.ctx, rootPassphrase.prompt = ctx, out.err
	defer rootPassphrase.forget()
	a := newApp(out)
	if words, ok := completing(args); ok {
		a.complete(words)
		return exitDone
	}
	line, err := reorder(a.cli, args)
	if err == nil {
		err = a.cli.RunContext(ctx, line)
	}
	if err == nil {
		return exitDone
	}
	return report(out.err, err, wantsJSON(args))
}
