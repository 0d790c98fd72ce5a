package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v2"

	"sealblk/disk"
	"sealblk/keymgr"
	"sealblk/keymgr/local"
)

func (a *app) diskRewrapCommand() *cli.Command {
	return &cli.Command{
		Name: "rewrap", Usage: "wrap a disk's data key anew, also while a VM uses the disk", ArgsUsage: "NAME | --all",
		Description: "Without --key the data key is wrapped under the newest version of the key that wraps it\n" +
			"now, and so is that in escrow; a disk that has it is left alone. With --key it goes under\n" +
			"another key, of the same KMS or of another. The data, and the key it is encrypted with, do\n" +
			"not change. --all re-wraps all disks, or with --key-from what is wrapped under one key;\n" +
			"interrupted, the same command goes on where it was. What fails is named, and the rest done.\n" +
			"--use-escrow takes the data key out of escrow, when the disk's own key or its KMS is lost.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Usage: "re-wrap all disks"},
			&cli.StringFlag{Name: "key", Usage: "`KEY` to wrap under (default: the one that does now)"},
			&cli.StringFlag{Name: "key-from", Usage: "with --all: only what is wrapped under `KEY`"},
			&cli.BoolFlag{Name: "use-escrow", Usage: "open the data key by the key in escrow"},
		},
		Action: a.diskRewrap,
	}
}

func (a *app) diskRewrap(c *cli.Context) error {
	all := c.Bool("all")
	switch {
	case all && c.Bool("use-escrow"):
		return usagef("--all and --use-escrow exclude each other: use escrow disk by disk")
	case !all && c.IsSet("key-from"):
		return usagef("--key-from needs --all")
	}
	for _, flag := range []string{"key", "key-from"} {
		if c.IsSet(flag) && c.String(flag) == "" {
			return usagef("--%s: give a key's URI, id or alias", flag)
		}
	}
	if all {
		return a.onDisks(func(c *cli.Context, disks *disk.Catalogue, _ []string) error {
			return a.rewrapAll(c, disks, disk.RewrapAllOptions{From: c.String("key-from"), To: c.String("key")}, nil)
		})(c)
	}
	return a.onDisks(a.rewrapOne, "NAME")(c)
}

// rewrapView is a re-wrapped disk as the command line shows it.
type rewrapView struct {
	diskView
	From    disk.Wrapping `json:"from"`
	Changed bool          `json:"changed"`
}

func (a *app) rewrapOne(c *cli.Context, disks *disk.Catalogue, args []string) error {
	done, err := disks.Rewrap(c.Context, args[0], disk.RewrapOptions{Key: c.String("key"), UseEscrow: c.Bool("use-escrow")})
	if err != nil {
		return err
	}
	if r := done.Record; r.KeyURI == r.EscrowKeyURI {
		a.warn(fmt.Sprintf("disk %s has the same key in escrow, which is lost with its own: choose another: sealblk disk set %s --escrow-key KEY", r.Name, r.Name))
	}
	v := rewrapView{viewOf(disks, done.Record), done.From, done.Changed}
	if !done.Changed {
		return a.printer(c).done(v, "disk %s is up to date: under %s", args[0], wrappingText(done.To))
	}
	return a.printer(c).done(v, "re-wrapped disk %s: from %s to %s", args[0], wrappingText(done.From), wrappingText(done.To))
}

func wrappingText(w disk.Wrapping) string {
	if w.KeyVersion == "" {
		return w.KeyURI
	}
	return w.KeyURI + " version " + w.KeyVersion
}

// rewrapReport is what became of many disks.
type rewrapReport struct {
	Rewrapped int            `json:"rewrapped"`
	Current   int            `json:"current"`
	Failed    int            `json:"failed"`
	Disks     []disk.Outcome `json:"disks"`
	// Key is set by key rotate.
	Key any `json:"key,omitempty"`
}

func (r *rewrapReport) add(o disk.Outcome) {
	r.Disks = append(r.Disks, o)
	switch o.Result {
	case disk.OutcomeRewrapped:
		r.Rewrapped++
	case disk.OutcomeCurrent:
		r.Current++
	default:
		r.Failed++
	}
}

// rewrapAll re-wraps many disks, shows how far it is, and reports at the end, also when
// it was interrupted.
func (a *app) rewrapAll(c *cli.Context, disks *disk.Catalogue, o disk.RewrapAllOptions, key any) error {
	report := rewrapReport{Disks: []disk.Outcome{}, Key: key}
	total := 0
	progress := a.rewrapProgress(c)
	o.Started = func(n int) { total = n; progress.started(n) }
	o.Done = func(out disk.Outcome) {
		report.add(out)
		progress.done(out)
	}
	err := disks.RewrapAll(c.Context, o)
	progress.end()
	for _, out := range report.Disks {
		if out.Err != nil {
			line := "disk " + out.Name + ": " + out.Error
			if hint := hintOf(out.Err); hint != "" {
				line += "; " + hint
			}
			a.warn(line)
		}
	}
	if total > 0 || err == nil {
		printed := a.printer(c).done(report, "re-wrapped %d of %d disks; %d were up to date, %d failed", report.Rewrapped, total, report.Current, report.Failed)
		if printed != nil {
			return printed
		}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("re-wrap %d of %d disks: %w; the same command goes on with the rest", total-len(report.Disks), total, err)
	case err != nil:
		return err
	case report.Failed > 0:
		return fmt.Errorf("%d of %d disks could not be re-wrapped: see the warnings; the same command tries them again", report.Failed, total)
	}
	return nil
}

// rewrapProgress is a bar on a terminal; with JSON output it is a line for each disk on
// stderr.
type rewrapProgress struct {
	started func(disks int)
	done    func(disk.Outcome)
	end     func()
}

func (a *app) rewrapProgress(c *cli.Context) rewrapProgress {
	none := rewrapProgress{func(int) {}, func(disk.Outcome) {}, func() {}}
	if c.String("output") == "json" {
		return a.jsonProgress()
	}
	if !isTerminal(a.out.err) {
		return none
	}
	bar := progressbar.NewOptions(1, progressbar.OptionSetWriter(a.out.err), progressbar.OptionClearOnFinish(),
		progressbar.OptionShowCount(), progressbar.OptionSetWidth(20), progressbar.OptionSetDescription("re-wrapping"), progressbar.OptionFullWidth())
	return rewrapProgress{
		func(n int) { bar.ChangeMax(n) },
		func(disk.Outcome) { bar.Add(1) }, //nolint:errcheck // a bar that cannot be drawn is not missed
		func() { bar.Clear() },            //nolint:errcheck // nor one that stays
	}
}

func (a *app) jsonProgress() rewrapProgress {
	type progress struct {
		Done  int    `json:"done"`
		Total int    `json:"total"`
		Disk  string `json:"disk"`
		What  string `json:"result"`
	}
	var now progress
	return rewrapProgress{
		func(n int) { now.Total = n },
		func(out disk.Outcome) {
			now.Done, now.Disk, now.What = now.Done+1, out.Name, out.Result
			json.NewEncoder(a.out.err).Encode(map[string]progress{"progress": now}) //nolint:errcheck // the result says it all
		},
		func() {},
	}
}

// rotateAndRewrap gives a key a new version and puts every disk under it. Interrupted, or
// with some that failed, the same command goes on and does not rotate again.
func (a *app) rotateAndRewrap(c *cli.Context, kms *local.KMS, key string) error {
	return a.withDisks(c, func(disks *disk.Catalogue) error {
		info, err := a.rotateOnce(c, kms, disks, key)
		if err != nil {
			return err
		}
		if err := a.rewrapAll(c, disks, disk.RewrapAllOptions{From: info.URI}, info); err != nil {
			return err
		}
		return disks.EndRotation(info.URI)
	})
}

// rotateOnce rotates a key, unless that was done by a command that did not end.
func (a *app) rotateOnce(c *cli.Context, kms *local.KMS, disks *disk.Catalogue, key string) (keymgr.KeyInfo, error) {
	info, err := kms.DescribeKey(c.Context, key)
	if err != nil {
		return info, err
	}
	from, begun, err := disks.Rotation(info.URI)
	if err != nil {
		return info, err
	}
	if begun && info.PrimaryVersion != from {
		a.warn(fmt.Sprintf("going on with the re-wrap under version %s of %s that was begun before; to rotate once more, do that first: sealblk key rotate %s",
			info.PrimaryVersion, info.KeyID, info.KeyID))
		return info, nil
	}
	if err := disks.BeginRotation(info.URI, info.PrimaryVersion); err != nil {
		return info, err
	}
	rotated, err := kms.RotateKey(c.Context, key)
	if err != nil {
		return rotated, errors.Join(err, disks.EndRotation(info.URI))
	}
	return rotated, nil
}
