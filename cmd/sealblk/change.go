package main

import (
	"github.com/urfave/cli/v2"

	"sealblk/daemon/resize"
	"sealblk/daemon/settings"
	"sealblk/disk"
)

func (a *app) diskResizeCommand() *cli.Command {
	return &cli.Command{
		Name: "resize", Usage: "make a disk larger, also while a VM uses it", ArgsUsage: "NAME SIZE",
		Description: "SIZE is what the guest sees from then on; it takes K, M, G, T for powers of 1024. A disk\n" +
			"never gets smaller. A resize that was interrupted is finished by the same command.",
		Action: a.onDisks(a.diskResize, "NAME", "SIZE"),
	}
}

func (a *app) diskResize(c *cli.Context, disks *disk.Catalogue, args []string) error {
	size, err := parseSize(args[1])
	if err != nil {
		return err
	}
	r, err := resize.Disk(c.Context, disks, args[0], size)
	if err != nil {
		return err
	}
	return a.printer(c).done(viewOf(disks, r), "resized disk %s to %s", r.Name, formatSize(r.SizeBytes))
}

func (a *app) diskSetCommand() *cli.Command {
	return &cli.Command{
		Name: "set", Usage: "change settings of a disk, also while a VM uses it", ArgsUsage: "NAME",
		Description: "--discard unmap gives back the space of what the guest discards, which then reads as\n" +
			"zeros; ignore leaves it. --zeroes write stores the zeros that the guest asks an encrypted\n" +
			"disk for as ciphertext, which other software reads as zeros too; unmap gives back their\n" +
			"space, if the guest allows it, and they are zeros through this program only. Both count\n" +
			"from the next export on. --escrow-key has a second key wrap the data key too, for when the\n" +
			"disk's own is lost; none ends that. The key in escrow opens the disk for who says\n" +
			"--use-escrow.\n" +
			"--on-key-loss is for an encrypted disk in use whose key is disabled, deleted or closed to\n" +
			"the disk service: keep goes on, and the next export fails; pause wipes the data key and\n" +
			"lets the guest wait until the key is back; detach wipes it after a while and fails the\n" +
			"guest's I/O. It counts for an export that runs, too.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "discard", Usage: "`POLICY`: unmap or ignore"},
			&cli.StringFlag{Name: "zeroes", Usage: "`POLICY`: write or unmap"},
			&cli.StringFlag{Name: "escrow-key", Usage: "`KEY` that wraps the data key too, or none; at once"},
			keyLossFlag(""),
		},
		Action: a.onDisks(a.diskSet, "NAME"),
	}
}

func keyLossFlag(value string) cli.Flag {
	return &cli.StringFlag{Name: "on-key-loss", Usage: "`POLICY` for a disk in use whose key is lost: keep, pause or detach", Value: value}
}

func (a *app) diskSet(c *cli.Context, disks *disk.Catalogue, args []string) error {
	asked := 0
	for _, name := range []string{"discard", "zeroes", "escrow-key", "on-key-loss"} {
		if !c.IsSet(name) {
			continue
		}
		if asked++; c.String(name) == "" {
			return usagef("--%s: give a value", name)
		}
	}
	if asked == 0 {
		return usagef("%s: nothing to set: usage: %s", c.Command.HelpName, usageLine(c))
	}
	if key := c.String("escrow-key"); key != "" { // before the rest, which has less to fail at
		if key == "none" {
			key = ""
		}
		if _, err := disks.SetEscrow(c.Context, args[0], key); err != nil {
			return err
		}
	}
	r, err := settings.Set(c.Context, disks, args[0], disk.Settings{
		Discard: disk.DiscardPolicy(c.String("discard")), Zeroes: disk.ZeroesPolicy(c.String("zeroes")),
		OnKeyLoss: disk.KeyLossPolicy(c.String("on-key-loss")),
	})
	if err != nil {
		return err
	}
	return a.printer(c).done(viewOf(disks, r), "disk %s: discard %s, zeroes %s, from its next export on; %s when its key is lost; key in escrow: %s",
		r.Name, r.Discard, r.Zeroes, r.OnKeyLoss, orDash(r.EscrowKeyURI))
}
