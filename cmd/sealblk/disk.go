package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"sealblk/blockdev/luks"
	"sealblk/daemon/control"
	"sealblk/disk"
	"sealblk/keymgr/local"
)

// diskAction is a command on the disks of the state directory.
type diskAction func(c *cli.Context, disks *disk.Catalogue, args []string) error

// onDisks opens the catalogue for a command, once the words it needs are there:
// arguments, and flags such as --size.
func (a *app) onDisks(run diskAction, needs ...string) cli.ActionFunc {
	isFlag := func(word string) bool { return strings.HasPrefix(word, "--") }
	names := slices.DeleteFunc(slices.Clone(needs), isFlag)
	flags := slices.DeleteFunc(slices.Clone(needs), func(word string) bool { return !isFlag(word) })
	return func(c *cli.Context) error {
		args, err := arguments(c, names...)
		if err != nil {
			return err
		}
		for _, flag := range flags {
			if c.String(strings.TrimPrefix(flag, "--")) == "" {
				return usagef("%s: %s is missing: usage: %s", c.Command.HelpName, flag, usageLine(c))
			}
		}
		return a.withDisks(c, func(disks *disk.Catalogue) error { return run(c, disks, args) })
	}
}

// withDisks opens the catalogue, and the KMS for it.
func (a *app) withDisks(c *cli.Context, run func(*disk.Catalogue) error) error {
	keys, err := a.keys(c, local.DiskService)
	if err != nil {
		return err
	}
	defer keys.Close() //nolint:errcheck // its memory is wiped whatever it says
	disks, err := disk.OpenCatalogue(stateDir(c), keys)
	if err != nil {
		return err
	}
	return run(disks)
}

func (a *app) diskCommand() *cli.Command {
	return &cli.Command{
		Name: "disk", Usage: "create, attach and look after disks",
		Subcommands: []*cli.Command{
			a.diskCreateCommand(),
			{Name: "list", Usage: "list all disks", Action: a.onDisks(a.diskList)},
			{Name: "show", Usage: "show one disk", ArgsUsage: "NAME", Action: a.onDisks(a.diskShow, "NAME")},
			{Name: "delete", Usage: "destroy a disk, its key and its data", ArgsUsage: "NAME", Action: a.onDisks(a.diskDelete, "NAME")},
			{Name: "check", Usage: "look at all that must be right before a disk is served", ArgsUsage: "NAME", Action: a.onDisks(a.diskCheck, "NAME")},
			a.diskResizeCommand(), a.diskSetCommand(), a.diskRewrapCommand(), a.diskImportCommand(), a.diskExportKeyCommand(), a.diskAttachCommand(), a.diskDetachCommand(),
		},
	}
}

func (a *app) diskCreateCommand() *cli.Command {
	return &cli.Command{
		Name: "create", Usage: "create a disk", ArgsUsage: "NAME",
		Description: "SIZE is a number of bytes, or takes K, M, G, T for powers of 1024.\n" +
			"KEY is a key's URI, id or alias; --key alone asks for encryption too. Without --key an\n" +
			"encrypted disk uses the service key, which is made when it is first needed.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "size", Usage: "`SIZE` that the guest sees"},
			&cli.BoolFlag{Name: "encrypted", Usage: "encrypt the disk"},
			&cli.StringFlag{Name: "key", Usage: "`KEY` that wraps the disk's data key"},
			&cli.StringFlag{Name: "escrow-key", Usage: "second `KEY` that wraps the data key too, best of another KMS, for when the first is lost"},
			&cli.BoolFlag{Name: "no-plaintext", Usage: "make the disk without its data key being seen on this host; the host that first attaches it proves the key"},
			&cli.StringFlag{Name: "role", Usage: "`ROLE`: system or data", Value: string(disk.Data)},
			&cli.StringFlag{Name: "category", Usage: "`CATEGORY`: cloud, or local (ephemeral, cannot be encrypted)", Value: string(disk.Cloud)},
			&cli.IntFlag{Name: "sector-size", Usage: "logical block and encryption unit, `BYTES`: 512 or 4096", Value: 512},
			&cli.StringFlag{Name: "backend", Usage: "`URI` of the backing store, file:PATH (default: a file in the state directory)"},
			&cli.StringFlag{Name: "serial", Usage: "serial number `S` that the guest sees, at most 20 characters (default: the disk's id)"},
			keyLossFlag(string(disk.KeyLossKeep)),
		},
		Action: a.onDisks(a.diskCreate, "NAME", "--size"),
	}
}

func (a *app) diskCreate(c *cli.Context, disks *disk.Catalogue, args []string) error {
	size, err := parseSize(c.String("size"))
	if err != nil {
		return err
	}
	const aKey = "a key's URI, id or alias"
	for _, f := range []struct{ name, wants string }{{"key", aKey}, {"escrow-key", aKey}, {"backend", "a URI, file:PATH"}} {
		if c.IsSet(f.name) && c.String(f.name) == "" {
			return usagef("--%s: give %s", f.name, f.wants)
		}
	}
	r, err := disks.Create(c.Context, disk.CreateOptions{
		Name: args[0], SizeBytes: size, Encrypted: c.Bool("encrypted"), Key: c.String("key"),
		EscrowKey: c.String("escrow-key"), NoPlaintext: c.Bool("no-plaintext"),
		Role: disk.Role(c.String("role")), Category: disk.Category(c.String("category")),
		SectorSize: c.Int("sector-size"), Backend: c.String("backend"), Serial: c.String("serial"),
		OnKeyLoss: disk.KeyLossPolicy(c.String("on-key-loss")),
	})
	if err != nil {
		return err
	}
	return a.printer(c).done(viewOf(disks, r), "created %s disk %s, %s", adjective(r), r.Name, formatSize(r.SizeBytes))
}

func adjective(r disk.Record) string {
	if r.Encrypted {
		return "encrypted"
	}
	return "plain"
}

// diskView is a disk as the command line shows it.
type diskView struct {
	disk.Record
	Path       string `json:"path"`
	State      string `json:"state"`
	SocketPath string `json:"socket_path"`
	// KeyState and IOState of the export that runs, if it was asked.
	KeyState string `json:"key_state,omitempty"`
	IOState  string `json:"io_state,omitempty"`
}

// ask completes a view with what the disk's export says of itself. One that does not
// answer is no reason not to show the disk.
func (v *diskView) ask(ctx context.Context, c *disk.Catalogue) {
	if v.State == "available" {
		return
	}
	if s, err := control.Dial(c.ControlPath(v.Name)).Status(ctx); err == nil {
		v.KeyState, v.IOState = s.KeyState, s.IOState
	}
}

func viewOf(c *disk.Catalogue, r disk.Record) diskView {
	v := diskView{Record: r, Path: r.Where(), State: "available"}
	if rt, ok := c.Runtime(r.Name); ok {
		v.State, v.SocketPath = "in-use", rt.SocketPath
	}
	return v
}

func (a *app) diskList(c *cli.Context, disks *disk.Catalogue, _ []string) error {
	records, damaged := disks.List()
	views := make([]diskView, 0, len(records))
	var rows [][]string
	for _, r := range records {
		v := viewOf(disks, r)
		views = append(views, v)
		rows = append(rows, []string{v.Name, formatSize(v.SizeBytes), yesNo(v.Encrypted), orDash(v.KeyID), string(v.Role), v.State, v.Path})
	}
	head := []string{"NAME", "SIZE", "ENCRYPTED", "KEY", "ROLE", "STATE", "PATH"}
	if err := a.printer(c).list(views, head, rows); err != nil {
		return err
	}
	for _, err := range damaged {
		a.warn(err.Error())
	}
	return nil
}

func (a *app) diskShow(c *cli.Context, disks *disk.Catalogue, args []string) error {
	r, err := disks.Get(args[0])
	if err != nil {
		return err
	}
	v := viewOf(disks, disks.Current(r))
	v.ask(c.Context, disks)
	return a.printer(c).value(v, [][2]string{
		{"name", v.Name}, {"id", v.ID}, {"size", formatSize(v.SizeBytes)}, {"encrypted", yesNo(v.Encrypted)},
		{"key", orDash(v.KeyURI)}, {"key version", orDash(v.KeyVersion)}, {"key in escrow", orDash(v.EscrowKeyURI)},
		{"key scope", keyScope(v.Record)}, {"digest", digestState(v.Record)}, {"sector size", strconv.Itoa(v.SectorSize)}, {"category", string(v.Category)},
		{"role", string(v.Role)}, {"serial", v.Serial}, {"path", v.Path}, {"state", v.State},
		{"discard", string(v.Discard)}, {"zeroes", string(v.Zeroes)}, {"on key loss", string(v.OnKeyLoss)},
		{"key state", orDash(v.KeyState)}, {"i/o", orDash(v.IOState)},
		{"socket", orDash(v.SocketPath)}, {"created", v.Created.Format("2006-01-02 15:04:05 MST")},
	})
}

// keyScope is how much a disk's data key covers.
func keyScope(r disk.Record) string {
	if !r.Encrypted {
		return "-"
	}
	return fmt.Sprintf("%d blocks of %d bytes", r.KeyScopeBlocks, luks.BlockSize)
}

func digestState(r disk.Record) string {
	switch {
	case !r.Encrypted:
		return "-"
	case r.DigestPending:
		return "pending until the disk is first attached"
	}
	return "made"
}

func (a *app) diskDelete(c *cli.Context, disks *disk.Catalogue, args []string) error {
	r, err := disks.Get(args[0])
	if err != nil {
		return err
	}
	erased, err := disks.Destroy(c.Context, args[0])
	if err != nil {
		return err
	}
	view := struct {
		Name  string `json:"name"`
		State string `json:"state"`
		disk.Erasure
	}{args[0], "deleted", erased}
	if err := a.printer(c).done(view, "deleted disk %s", args[0]); err != nil {
		return err
	}
	if r.Encrypted && c.String("output") != "json" {
		fmt.Fprintf(a.out.err, "sealblk: its key: %s; snapshots and copies of its file, if there are any, still open by %s until they or that key are destroyed\n", erased, r.KeyURI)
	}
	return nil
}

func (a *app) diskCheck(c *cli.Context, disks *disk.Catalogue, args []string) error {
	found, err := disks.Check(c.Context, args[0])
	if err != nil {
		return err
	}
	var rows [][]string
	for _, f := range found {
		rows = append(rows, []string{f.Result, f.Check, f.Detail})
		if err == nil {
			err = f.Err
		}
		if f.Result == disk.Warning {
			a.warn(f.Detail)
		}
	}
	if printed := a.printer(c).list(found, []string{"RESULT", "CHECK", "DETAIL"}, rows); printed != nil {
		return printed
	}
	return err
}

func (a *app) diskImportCommand() *cli.Command {
	return &cli.Command{
		Name: "import", Usage: "register an encrypted disk that describes itself", ArgsUsage: "NAME",
		Description: "For a disk whose catalogue is lost or that comes from another host. Its header names\n" +
			"the key; the KMS must be able to unwrap it here. What sealblk disk set changes is not in the\n" +
			"header: the disk has the settings of a new one, until they are set again.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "backend", Usage: "`URI` of the backing store, file:PATH"},
			&cli.BoolFlag{Name: "use-escrow", Usage: "prove the disk by its key in escrow: its own key, or the KMS of that, is lost; recorded"},
		},
		Action: a.onDisks(a.diskImport, "NAME", "--backend"),
	}
}

func (a *app) diskImport(c *cli.Context, disks *disk.Catalogue, args []string) error {
	register := disks.Import
	if c.Bool("use-escrow") {
		register = disks.ImportByEscrow
	}
	r, err := register(c.Context, args[0], c.String("backend"))
	if err != nil {
		return err
	}
	return a.printer(c).done(viewOf(disks, r), "imported encrypted disk %s, %s, with the settings of a new disk: discard %s, zeroes %s, %s when its key is lost: sealblk disk set %s",
		r.Name, formatSize(r.SizeBytes), r.Discard, r.Zeroes, r.OnKeyLoss, r.Name)
}

func (a *app) diskExportKeyCommand() *cli.Command {
	return &cli.Command{
		Name: "export-key", Usage: "write a disk's data key to a file: the way to the data without this program", ArgsUsage: "NAME",
		Description: "The file gets the raw 64 bytes of the key, as cryptsetup's --volume-key-file takes them.\n" +
			"Whoever has it can read the disk for ever. FILE may be a pipe; a regular file must not exist yet.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "`FILE` to write, made with mode 0600"},
			&cli.BoolFlag{Name: "use-escrow", Usage: "unwrap it by the key in escrow: the disk's own key, or its KMS, is lost"},
			&cli.BoolFlag{Name: "yes-i-know", Usage: "confirm that the key leaves its protection"},
		},
		Action: a.onDisks(a.diskExportKey, "NAME", "--out"),
	}
}

func (a *app) diskExportKey(c *cli.Context, disks *disk.Catalogue, args []string) error {
	out := c.String("out")
	if !c.Bool("yes-i-know") {
		return usagef("the data key of disk %s would leave its protection: whoever has the file can read the disk for ever: add --yes-i-know to confirm", args[0])
	}
	abs, err := filepath.Abs(out) // as it is recorded
	if err != nil {
		return err
	}
	file, err := newKeyFile(out)
	if err != nil {
		return fmt.Errorf("write data key: %w", err)
	}
	unwrap := disks.ExportKey
	if c.Bool("use-escrow") {
		unwrap = disks.ExportEscrowKey
	}
	dk, err := unwrap(c.Context, args[0], abs)
	if err != nil {
		file.discard()
		return err
	}
	defer dk.Destroy()
	if err := file.write(c.Context, dk); err != nil {
		file.discard()
		return fmt.Errorf("write data key: %w", err)
	}
	return a.printer(c).done(map[string]string{"name": args[0], "out": out}, "wrote the data key of disk %s to %s: keep it as safe as the data", args[0], out)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// formatSize shows a size in the largest unit that needs no fraction.
func formatSize(n int64) string {
	units := "BKMGTP"
	i := 0
	for n%1024 == 0 && n > 0 && i < len(units)-1 {
		n /= 1024
		i++
	}
	return strconv.FormatInt(n, 10) + units[i:i+1]
}
