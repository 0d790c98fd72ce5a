package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"sealblk/daemon/attach"
	"sealblk/disk"
)

func (a *app) diskAttachCommand() *cli.Command {
	return &cli.Command{
		Name: "attach", Usage: "plug a disk into a running VM", ArgsUsage: "NAME",
		Description: "Uses the disk's export if one runs, else starts one in the background, which detach stops.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "qmp", Usage: "`SOCKET` of the VM's QEMU monitor (QMP)"},
			&cli.StringFlag{Name: "id", Usage: "`ID` of the device in the VM (default: sealblk-NAME)"},
			&cli.StringFlag{Name: "bus", Usage: "`ID` of the PCI bus to plug into (default: the first free hot-plug slot)"},
			&cli.IntFlag{Name: "bootindex", Usage: "place `N` in the firmware's boot order"},
			&cli.BoolFlag{Name: "use-escrow", Usage: "have the export that is started open the disk by its key in escrow; recorded"},
			keyDeadlineFlag(attachKeyDeadline),
		},
		Action: a.onDisks(a.diskAttach, "NAME", "--qmp"),
	}
}

// attachKeyDeadline is how long a person waits for a KMS that does not answer.
const attachKeyDeadline = 30 * time.Second

func (a *app) diskAttach(c *cli.Context, disks *disk.Catalogue, args []string) (err error) {
	o := attach.Options{Disk: args[0], QMP: c.String("qmp"), ID: c.String("id"), Bus: c.String("bus"), UseEscrow: c.Bool("use-escrow")}
	o.KeyDeadline = c.Duration("key-deadline")
	if err := checkKeyDeadline(o.KeyDeadline); err != nil {
		return err
	}
	if c.IsSet("bootindex") {
		n := c.Int("bootindex")
		o.BootIndex = &n
	}
	if o.Program, err = ownCommand(c, disks.Dir()); err != nil {
		return err
	}
	at, err := attach.Attach(c.Context, disks, o)
	if err != nil {
		return err
	}
	return a.printer(c).done(at, "attached disk %s as %s", at.Disk, at.ID)
}

func (a *app) diskDetachCommand() *cli.Command {
	return &cli.Command{
		Name: "detach", Usage: "unplug a disk from its VM", ArgsUsage: "NAME",
		Action: a.onDisks(a.diskDetach, "NAME"),
	}
}

func (a *app) diskDetach(c *cli.Context, disks *disk.Catalogue, args []string) error {
	at, err := attach.Detach(c.Context, disks, args[0])
	if err != nil {
		return err
	}
	switch {
	case at.ServedBy != nil:
		return a.printer(c).done(at, "detached disk %s here; its VM has migrated and still has it, served by the export with pid %d at %s",
			at.Disk, at.ServedBy.PID, at.ServedBy.SocketPath)
	case at.Migrated:
		return a.printer(c).done(at, "detached disk %s here; its VM has migrated", at.Disk)
	}
	return a.printer(c).done(at, "detached disk %s", at.Disk)
}
