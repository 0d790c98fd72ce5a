package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"sealblk/disk"
	"sealblk/keymgr"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

const timeFormat = "2006-01-02 15:04:05 MST"

func (a *app) keyImportCommand() *cli.Command {
	return &cli.Command{
		Name: "import", Usage: "give a key of external origin its material", ArgsUsage: "KEY", Action: a.onKeys(a.keyImport, "KEY"),
		Description: "The material is 32 random bytes. Once it was deleted or has expired, the key takes the\n" +
			"same material only. Nobody but you has a copy of it that outlives this host.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "material", Usage: "`FILE` or pipe with exactly 32 bytes"},
			&cli.StringFlag{Name: "expires-in", Usage: "forget the material after so many `DAYS`, such as 30d"},
		},
	}
}

func (a *app) keyImport(c *cli.Context, kms *local.KMS, args []string) error {
	if c.String("material") == "" {
		return usagef("%s: --material is missing: usage: %s", c.Command.HelpName, usageLine(c))
	}
	var expires time.Time
	if c.IsSet("expires-in") {
		days, err := parseDays(c.String("expires-in"))
		if err != nil {
			return err
		}
		expires = time.Now().AddDate(0, 0, days)
	}
	material, err := awaited(c.Context, func() (*secret.Buffer, error) { return readMaterial(c.String("material")) })
	if err != nil {
		return fmt.Errorf("read key material: %w", err)
	}
	defer material.Destroy()
	if err := kms.ImportKeyMaterial(c.Context, args[0], material, expires); err != nil {
		return err
	}
	return a.showKey(c, kms, args[0])
}

// readMaterial reads a file or pipe straight into locked memory. One byte more than a
// key's is too much.
func readMaterial(path string) (*secret.Buffer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, err := secret.ReadPipe(f, local.MaterialSize)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("%s holds less than %d bytes", path, local.MaterialSize)
	}
	if err != nil {
		return nil, err
	}
	if more, err := secret.ReadPipe(f, 1); err == nil {
		more.Destroy()
		m.Destroy()
		return nil, fmt.Errorf("%s holds more than %d bytes", path, local.MaterialSize)
	}
	return m, nil
}

func (a *app) keyDeleteMaterial(c *cli.Context, kms *local.KMS, args []string) error {
	if err := kms.DeleteKeyMaterial(c.Context, args[0]); err != nil {
		return err
	}
	return a.showKey(c, kms, args[0])
}

func (a *app) keySetCommand() *cli.Command {
	return &cli.Command{
		Name: "set", Usage: "change a key's settings", ArgsUsage: "KEY", Action: a.onKeys(a.keySet, "KEY"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "description", Usage: "what the key is for"},
			&cli.StringFlag{Name: "rotate-every", Usage: "rotate by itself every so many `DAYS`, 7d to 365d, or never"},
			&cli.StringFlag{Name: "deletion-protection", Usage: "refuse to delete the key: `on` or off"},
		},
	}
}

func (a *app) keySet(c *cli.Context, kms *local.KMS, args []string) error {
	if c.NumFlags() == 0 {
		return usagef("%s: say what to change: usage: %s", c.Command.HelpName, usageLine(c))
	}
	if v := c.String("deletion-protection"); c.IsSet("deletion-protection") && v != "on" && v != "off" {
		return usagef("deletion protection %q: use on or off", v)
	}
	days := 0
	if v := c.String("rotate-every"); c.IsSet("rotate-every") && v != "never" {
		var err error
		if days, err = parseDays(v); err != nil {
			return err
		}
	}
	for _, s := range []struct {
		flag string
		set  func() error
	}{
		{"description", func() error { return kms.UpdateKeyDescription(c.Context, args[0], c.String("description")) }},
		{"rotate-every", func() error { return kms.SetRotation(c.Context, args[0], days) }},
		{"deletion-protection", func() error {
			return kms.SetDeletionProtection(c.Context, args[0], c.String("deletion-protection") == "on")
		}},
	} {
		if !c.IsSet(s.flag) {
			continue
		}
		if err := s.set(); err != nil {
			return err
		}
	}
	return a.showKey(c, kms, args[0])
}

func (a *app) keyUsage(c *cli.Context, kms *local.KMS, args []string) error {
	usage, err := kms.KeyUsage(c.Context, args[0])
	if usage == nil {
		return err
	}
	versions := versionsUnder(c, kms, args[0])
	views := make([]usageView, 0, len(usage))
	var rows [][]string
	for _, u := range usage {
		v := usageView{u, versions[u.Disk]}
		views = append(views, v)
		rows = append(rows, []string{
			u.Operation, orDash(u.Disk), strconv.FormatUint(u.Calls, 10), strconv.FormatUint(u.Refused, 10), u.Last.Format(timeFormat), orDash(v.KeyVersion),
		})
	}
	if printed := a.printer(c).list(views, []string{"OPERATION", "DISK", "CALLS", "REFUSED", "LAST", "WRAPPED UNDER VERSION"}, rows); printed != nil {
		return printed
	}
	return err
}

// usageView is a line of a key's usage with the version that wraps the disk's data key
// now; empty if that is not under the key.
type usageView struct {
	local.Usage
	KeyVersion string `json:"key_version"`
}

// versionsUnder tells which version of a key wraps the data keys of the disks here, by
// their lineage.
func versionsUnder(c *cli.Context, kms *local.KMS, key string) map[string]string {
	versions := map[string]string{}
	info, err := kms.DescribeKey(c.Context, key)
	if err != nil {
		return versions
	}
	disks, err := disk.OpenCatalogue(stateDir(c), nil)
	if err != nil {
		return versions
	}
	records, _ := disks.List() // what is damaged is told by disk list
	for _, r := range records {
		if !r.Encrypted {
			continue
		}
		if now := disks.Current(r); now.KeyURI == info.URI {
			versions[now.Lineage] = now.KeyVersion
		}
	}
	return versions
}

// planned is what will happen to a key by itself.
func planned(k keymgr.KeyInfo) [][2]string {
	var rows [][2]string
	for _, p := range []struct {
		name string
		when *time.Time
	}{{"next rotation", k.NextRotation}, {"material expires", k.MaterialExpires}, {"deletion", k.DeletionDate}} {
		if p.when != nil {
			rows = append(rows, [2]string{p.name, p.when.Format(timeFormat)})
		}
	}
	return rows
}

// parseDays reads "90d".
func parseDays(s string) (int, error) {
	number, unit := strings.CutSuffix(s, "d")
	n, err := strconv.Atoi(number)
	if !unit || err != nil || n <= 0 || n > 36500 {
		return 0, usagef("%q is not a number of days: write it as 90d", s)
	}
	return n, nil
}
