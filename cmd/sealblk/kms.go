package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"sealblk/keymgr/local"
)

func (a *app) kmsCommand() *cli.Command {
	from := &cli.StringFlag{Name: "passphrase-file", Usage: "`FILE` or pipe with the passphrase (default: ask the terminal)"}
	return &cli.Command{
		Name: "kms", Usage: "the embedded KMS as a whole",
		Subcommands: []*cli.Command{
			{
				Name: "backup", Usage: "save all keys in one file under a passphrase", Action: a.onKeys(a.kmsBackup),
				Description: "The file holds the root key, all keys and the audit log. It is needed when this host is\n" +
					"lost, together with its passphrase. Make a new one after keys were created or rotated.",
				Flags: []cli.Flag{&cli.StringFlag{Name: "out", Usage: "`FILE` to write, which must not exist"}, from},
			},
			{
				Name: "restore", Usage: "bring the keys of a backup into a state directory without keys", ArgsUsage: "FILE", Action: a.kmsRestore,
				Description: "The backup is opened and checked as a whole before anything changes.",
				Flags:       []cli.Flag{from},
			},
			a.kmsServeCommand(), a.kmsAccessKeyCommand(), a.kmsRootCommand(),
		},
	}
}

func (a *app) kmsBackup(c *cli.Context, kms *local.KMS, _ []string) error {
	out := c.String("out")
	if out == "" {
		return usagef("%s: --out is missing: usage: %s", c.Command.HelpName, usageLine(c))
	}
	if _, err := os.Lstat(out); err == nil {
		return fmt.Errorf("back up to %s: %w: choose another name", out, fs.ErrExist)
	}
	p, err := passphrase(c.Context, c.String("passphrase-file"), a.out.err, true)
	if err != nil {
		return err
	}
	defer p.Destroy()
	if err := kms.Backup(c.Context, p, func(write func(io.Writer) error) error { return saveNew(out, write) }); err != nil {
		return err
	}
	return a.printer(c).done(map[string]string{"out": out}, "saved all keys in %s: keep it on another host, and its passphrase apart from it", out)
}

// saveNew makes a file that is whole and durable, or none: it has its name once it is. Who
// is killed before leaves a part under a name that nobody takes for the file.
func saveNew(path string, fill func(io.Writer) error) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".sealblk.*.part")
	if err != nil {
		return fmt.Errorf("make %s: %w", path, reason(err))
	}
	defer f.Close()
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = nameNew(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := syncDirectory(dir); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// nameNew renames a file, to a name that is free. NFS has no such call, and FAT no links.
func nameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		if err = reason(os.Link(from, to)); err == nil {
			return os.Remove(from)
		}
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", to, err)
	}
	return nil
}

// reason is an error without the names of files that the user does not know.
func reason(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (a *app) kmsRestore(c *cli.Context) error {
	args, err := arguments(c, "FILE")
	if err != nil {
		return err
	}
	config, err := loadConfig(c.String("config"))
	if err != nil {
		return err
	}
	backup, err := awaited(c.Context, func() (*os.File, error) { return os.Open(args[0]) })
	if err != nil {
		return fmt.Errorf("read backup: %w", err)
	}
	defer backup.Close()
	p, err := passphrase(c.Context, c.String("passphrase-file"), a.out.err, false)
	if err != nil {
		return err
	}
	defer p.Destroy()
	n, err := local.Restore(c.Context, kmsDir(stateDir(c)), a.operatorOptions(c, config), p, awaitedReader{c.Context, backup})
	if err != nil {
		return err
	}
	return a.printer(c).done(map[string]int{"keys": n}, "restored %d keys", n)
}

// backupWarning is what to tell who would lose keys with this host, "" if nothing.
func backupWarning(s local.BackupStatus) string {
	switch {
	case !s.Needed():
		return ""
	case s.Last == nil:
		return "the keys were never backed up: losing them loses every disk: sealblk kms backup --out FILE"
	}
	return fmt.Sprintf("%d keys or versions were made since the last backup: sealblk kms backup --out FILE", s.Unsaved)
}
