package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"sealblk/keymgr"
	"sealblk/keymgr/local"
)

// keyAction is a command on the embedded KMS, in the name of the operator.
type keyAction func(c *cli.Context, kms *local.KMS, args []string) error

func (a *app) keyCommand() *cli.Command {
	return &cli.Command{
		Name: "key", Usage: "keys of the embedded KMS",
		Description: "KEY is a key id, an alias or a URI. The service key acs/ecs is made when it is first\n" +
			"needed; it can be neither disabled nor deleted.",
		Subcommands: []*cli.Command{
			{
				Name: "create", Usage: "make a key of your own", Action: a.onKeys(a.keyCreate),
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "alias", Usage: "`alias/NAME` for the key"},
					&cli.StringFlag{Name: "description", Usage: "what the key is for"},
					&cli.StringFlag{Name: "rotate-every", Usage: "rotate by itself every so many `DAYS`, 7d to 365d"},
					&cli.StringFlag{Name: "origin", Usage: "where the material comes from, `ORIGIN`: kms, or external (sealblk key import)", Value: "kms"},
					&cli.BoolFlag{Name: "deletion-protection", Usage: "refuse to delete the key"},
				},
			},
			a.keyImportCommand(),
			{
				Name: "delete-material", Usage: "forget imported material; the key waits for the same material", ArgsUsage: "KEY",
				Action: a.onKeys(a.keyDeleteMaterial, "KEY"),
			},
			a.keySetCommand(),
			{Name: "usage", Usage: "count the calls on a key, by operation and disk", ArgsUsage: "KEY", Action: a.onKeys(a.keyUsage, "KEY")},
			{Name: "list", Usage: "list all keys", Action: a.onKeys(a.keyList)},
			{Name: "show", Usage: "show one key", ArgsUsage: "KEY", Action: a.onKeys(a.keyShow, "KEY")},
			{Name: "enable", Usage: "make a disabled key usable again", ArgsUsage: "KEY", Action: a.onKeys(a.keyEnable, "KEY")},
			{Name: "disable", Usage: "make a key unusable until it is enabled", ArgsUsage: "KEY", Action: a.onKeys(a.keyDisable, "KEY")},
			{
				Name: "rotate", Usage: "give a key a new version; older ones still open what they wrapped", ArgsUsage: "KEY", Action: a.onKeys(a.keyRotate, "KEY"),
				Flags: []cli.Flag{&cli.BoolFlag{Name: "rewrap", Usage: "and wrap the data key of every disk under it anew; interrupted, the same command goes on"}},
			},
			{
				Name: "schedule-deletion", Usage: "delete a key some days from now", ArgsUsage: "KEY", Action: a.onKeys(a.keyScheduleDeletion, "KEY"),
				Flags: []cli.Flag{
					&cli.IntFlag{Name: "days", Usage: "days from now, `N` from 7 to 366"},
					&cli.BoolFlag{Name: "force", Usage: "also if disks need the key: their data is lost with it"},
				},
			},
			{Name: "cancel-deletion", Usage: "keep a key after all", ArgsUsage: "KEY", Action: a.onKeys(a.keyCancelDeletion, "KEY")},
			{
				Name: "alias", Usage: "names for keys",
				Subcommands: []*cli.Command{
					{Name: "set", Usage: "give a key an alias", ArgsUsage: "ALIAS KEY", Action: a.onKeys(a.keyAliasSet, "ALIAS", "KEY")},
					{Name: "delete", Usage: "take an alias away", ArgsUsage: "ALIAS", Action: a.onKeys(a.keyAliasDelete, "ALIAS")},
				},
			},
			{
				Name: "authorize", Usage: "let a principal use a key", ArgsUsage: "KEY", Action: a.onKeys(a.keyAuthorize, "KEY"),
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "principal", Usage: "`P` that may use the key, such as " + local.DiskService},
					&cli.StringFlag{Name: "allow", Usage: "comma-separated `LIST` of generate, decrypt, reencrypt, admin"},
				},
			},
			{
				Name: "revoke", Usage: "take all permissions on a key from a principal", ArgsUsage: "KEY", Action: a.onKeys(a.keyRevoke, "KEY"),
				Flags: []cli.Flag{&cli.StringFlag{Name: "principal", Usage: "`P` to take them from"}},
			},
		},
	}
}

// onKeys opens the embedded KMS for a command, and checks its arguments before that.
func (a *app) onKeys(run keyAction, names ...string) cli.ActionFunc {
	return func(c *cli.Context) error {
		args, err := arguments(c, names...)
		if err != nil {
			return err
		}
		config, err := loadConfig(c.String("config"))
		if err != nil {
			return err
		}
		for i, name := range names {
			if name == "KEY" {
				if args[i], err = localKey(args[i]); err != nil {
					return err
				}
			}
		}
		kms, err := local.Open(kmsDir(stateDir(c)), a.operatorOptions(c, config))
		if err != nil {
			return err
		}
		defer kms.Close()
		return run(c, kms, args)
	}
}

// localKey takes a URI's scheme off; keys of other KMSs are administered there.
func localKey(arg string) (string, error) {
	u, err := keymgr.ParseURI(arg)
	if err != nil {
		return "", err
	}
	if u.Scheme != keymgr.SchemeLocal {
		return "", usagef("key %s: only keys of the embedded KMS are administered here: use the tools of that KMS", arg)
	}
	return u.Key, nil
}

func (a *app) keyCreate(c *cli.Context, kms *local.KMS, _ []string) error {
	options := local.CreateOptions{
		Alias: c.String("alias"), Description: c.String("description"),
		External: c.String("origin") == "external", Protected: c.Bool("deletion-protection"),
	}
	if c.IsSet("alias") && options.Alias == "" {
		return usagef("--alias: give alias/NAME, or leave it out")
	}
	var err error
	if c.IsSet("rotate-every") {
		if options.RotateDays, err = parseDays(c.String("rotate-every")); err != nil {
			return err
		}
	}
	lost := kms.Lost(c.Context)
	k, err := kms.CreateKey(c.Context, options)
	if err != nil {
		return err
	}
	if lost != nil {
		a.warn("this key is in a new KMS, for there was none; if a backup turns up, move " + kmsDir(stateDir(c)) + " away before sealblk kms restore FILE")
	}
	if options.External {
		return a.printer(c).done(k, "created key %s, which waits for its material: sealblk key import %s --material FILE", k.KeyID, k.KeyID)
	}
	return a.printer(c).done(k, "created key %s; for disks to use it: sealblk key authorize %s --principal %s --allow generate,decrypt",
		k.KeyID, k.KeyID, local.DiskService)
}

func (a *app) keyList(c *cli.Context, kms *local.KMS, _ []string) error {
	keys, err := kms.ListKeys(c.Context)
	var rows [][]string
	for _, k := range keys {
		rows = append(rows, []string{k.KeyID, strings.Join(k.Aliases, ","), string(k.State), k.Origin, k.PrimaryVersion, k.Created.Format(time.DateOnly)})
	}
	head := []string{"KEY", "ALIASES", "STATE", "ORIGIN", "PRIMARY VERSION", "CREATED"}
	if printed := a.printer(c).list(keys, head, rows); printed != nil {
		return printed
	}
	if lost := kms.Lost(c.Context); lost != nil {
		a.warn(lost.Error() + "; " + hintOf(lost))
	}
	if status, err := kms.BackupStatus(c.Context); err == nil {
		if w := backupWarning(status); w != "" {
			a.warn(w)
		}
	}
	return err
}

func (a *app) keyShow(c *cli.Context, kms *local.KMS, args []string) error {
	return a.showKey(c, kms, args[0])
}

// showKey prints a key with its policy; commands that change a key end with it.
func (a *app) showKey(c *cli.Context, kms *local.KMS, key string) error {
	k, err := kms.DescribeKey(c.Context, key)
	if err != nil {
		return err
	}
	policy, err := kms.Policy(c.Context, key)
	if err != nil {
		return err
	}
	view := struct {
		keymgr.KeyInfo
		Policy map[string][]local.Permission `json:"policy"`
	}{k, policy}
	rows := [][2]string{
		{"key", k.KeyID}, {"uri", k.URI}, {"aliases", orDash(strings.Join(k.Aliases, ", "))}, {"state", string(k.State)},
		{"origin", k.Origin}, {"description", orDash(k.Description)}, {"service key", yesNo(k.Service)},
		{"primary version", k.PrimaryVersion}, {"versions", strconv.Itoa(k.Versions)},
		{"created", k.Created.Format(timeFormat)}, {"deletion protection", yesNo(k.DeletionProtection)},
	}
	rows = append(rows, planned(k)...)
	for principal, allowed := range policy {
		rows = append(rows, [2]string{"allowed to " + principal, fmt.Sprint(allowed)})
	}
	return a.printer(c).value(view, rows)
}

func (a *app) keyEnable(c *cli.Context, kms *local.KMS, args []string) error {
	if err := kms.EnableKey(c.Context, args[0]); err != nil {
		return err
	}
	return a.showKey(c, kms, args[0])
}

func (a *app) keyDisable(c *cli.Context, kms *local.KMS, args []string) error {
	if err := kms.DisableKey(c.Context, args[0]); err != nil {
		return err
	}
	return a.showKey(c, kms, args[0])
}

func (a *app) keyRotate(c *cli.Context, kms *local.KMS, args []string) error {
	if c.Bool("rewrap") {
		return a.rotateAndRewrap(c, kms, args[0])
	}
	if _, err := kms.RotateKey(c.Context, args[0]); err != nil {
		return err
	}
	return a.showKey(c, kms, args[0])
}

func (a *app) keyScheduleDeletion(c *cli.Context, kms *local.KMS, args []string) error {
	if !c.IsSet("days") {
		return usagef("%s: --days is missing: usage: %s", c.Command.HelpName, usageLine(c))
	}
	k, err := kms.DescribeKey(c.Context, args[0])
	if err != nil {
		return err
	}
	when, err := kms.ScheduleKeyDeletion(c.Context, args[0], c.Int("days"), c.Bool("force"))
	if err != nil {
		return err
	}
	return a.printer(c).done(map[string]any{"key_id": k.KeyID, "deletion_date": when},
		"key %s is unusable now and deleted on %s; to keep it: sealblk key cancel-deletion %s", k.KeyID, when.Format(time.DateOnly), k.KeyID)
}

func (a *app) keyCancelDeletion(c *cli.Context, kms *local.KMS, args []string) error {
	if err := kms.CancelKeyDeletion(c.Context, args[0]); err != nil {
		return err
	}
	return a.showKey(c, kms, args[0])
}

func (a *app) keyAliasSet(c *cli.Context, kms *local.KMS, args []string) error {
	if err := kms.SetAlias(c.Context, args[0], args[1]); err != nil {
		return err
	}
	return a.showKey(c, kms, args[1])
}

func (a *app) keyAliasDelete(c *cli.Context, kms *local.KMS, args []string) error {
	if err := kms.DeleteAlias(c.Context, args[0]); err != nil {
		return err
	}
	return a.printer(c).done(map[string]string{"alias": args[0], "state": "deleted"}, "deleted %s", args[0])
}

func (a *app) keyAuthorize(c *cli.Context, kms *local.KMS, args []string) error {
	if c.String("principal") == "" || c.String("allow") == "" {
		return usagef("%s: --principal and --allow are needed: usage: %s", c.Command.HelpName, usageLine(c))
	}
	allow, err := local.ParsePermissions(c.String("allow"))
	if err != nil {
		return err
	}
	if err := kms.Authorize(c.Context, args[0], c.String("principal"), allow); err != nil {
		return err
	}
	return a.showKey(c, kms, args[0])
}

func (a *app) keyRevoke(c *cli.Context, kms *local.KMS, args []string) error {
	if c.String("principal") == "" {
		return usagef("%s: --principal is missing: usage: %s", c.Command.HelpName, usageLine(c))
	}
	if err := kms.Revoke(c.Context, args[0], c.String("principal")); err != nil {
		return err
	}
	return a.showKey(c, kms, args[0])
}
