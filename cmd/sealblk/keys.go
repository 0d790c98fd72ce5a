package main

import (
	"context"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"sealblk/disk"
	"sealblk/keymgr"
	"sealblk/keymgr/aliyun"
	"sealblk/keymgr/aws"
	"sealblk/keymgr/kmip"
	"sealblk/keymgr/local"
	"sealblk/keymgr/pkcs11"
	"sealblk/keymgr/vault"
)

// keys is every KMS that the configuration knows, as a principal uses them. Each is
// opened when a key of it is first needed.
func (a *app) keys(c *cli.Context, principal string) (*keymgr.Set, error) {
	return a.keysWith(c, principal, keymgr.DefaultRetry)
}

func (a *app) keysWith(c *cli.Context, principal string, retry keymgr.Retry) (*keymgr.Set, error) {
	config, err := loadConfig(c.String("config"))
	if err != nil {
		return nil, err
	}
	dir := stateDir(c)
	set := keymgr.NewSet(retry, map[string]keymgr.Opener{
		keymgr.SchemeLocal: func(context.Context) (keymgr.KMS, error) { return openLocal(dir, config, principal) },
		aliyun.Scheme:      func(ctx context.Context) (keymgr.KMS, error) { return aliyun.Open(ctx, config.KMS.Aliyun) },
		pkcs11.Scheme:      func(context.Context) (keymgr.KMS, error) { return pkcs11.Open(config.KMS.PKCS11) },
		vault.Scheme:       func(ctx context.Context) (keymgr.KMS, error) { return vault.Open(ctx, config.KMS.Vault) },
		aws.Scheme:         func(ctx context.Context) (keymgr.KMS, error) { return aws.Open(ctx, config.KMS.AWS) },
		kmip.Scheme:        func(ctx context.Context) (keymgr.KMS, error) { return kmip.Open(ctx, config.KMS.KMIP) },
	})
	set.SetGate(keymgr.FileGate{Dir: filepath.Join(dir, "run")})
	return set, nil
}

func openLocal(stateDir string, config config, principal string) (*local.KMS, error) {
	return local.Open(kmsDir(stateDir), localOptions(stateDir, config, principal))
}

func kmsDir(stateDir string) string { return filepath.Join(stateDir, "kms") }

func localOptions(stateDir string, config config, principal string) local.Options {
	return local.Options{
		Region: config.KMS.Local.Region, Principal: principal,
		Root: config.KMS.Local.Root.Source, Sources: rootSources(config),
		Users: func(_ context.Context, uri string) ([]string, error) {
			return disksIn(stateDir, func(c *disk.Catalogue) ([]string, error) { return c.UsersOf(uri) })
		},
		Wrapped: func(context.Context) ([]string, error) {
			if len(disk.Names(stateDir)) == 0 { // nor is there a catalogue, perhaps
				return nil, nil
			}
			return disksIn(stateDir, func(c *disk.Catalogue) ([]string, error) { return c.WrappedBy(keymgr.SchemeLocal) })
		},
	}
}

// operatorOptions are those of a command that works on the KMS itself.
func (a *app) operatorOptions(c *cli.Context, config config) local.Options {
	o := localOptions(stateDir(c), config, local.Operator)
	o.Warn = func(damage error) {
		a.warn("the audit log is damaged, the keys are not; it is taken along as it is, see sealblk audit verify: " + damage.Error())
	}
	return o
}

// disksIn has a catalogue name disks, for a KMS that does not know what they are.
func disksIn(stateDir string, names func(*disk.Catalogue) ([]string, error)) ([]string, error) {
	catalogue, err := disk.OpenCatalogue(stateDir, nil)
	if err != nil {
		return nil, err
	}
	found, err := names(catalogue)
	for i, name := range found {
		found[i] = "disk " + name
	}
	return found, err
}
