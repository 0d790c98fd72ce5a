package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"sealblk/keymgr/local"
	"sealblk/keymgr/pkcs11"
	"sealblk/keymgr/tpm"
)

// Sources of the root key beside those of the package local.
const (
	rootTPM    = "tpm"
	rootPKCS11 = "pkcs11"
)

// rootConfig says where the root key of the embedded KMS is kept, and how it is reached
// there.
type rootConfig struct {
	// Source is where a new or restored KMS keeps it: "file" (the default), "credential",
	// "passphrase", "tpm" or "pkcs11". An existing KMS is moved by kms root set.
	Source string `toml:"source"`
	// Credential is the name of a systemd credential of at least 32 random bytes, or the
	// path of such a file.
	Credential string `toml:"credential"`
	// PassphraseFile, a path or the name of a systemd credential, or PassphraseFD is where
	// the passphrase is; neither: the terminal.
	PassphraseFile string `toml:"passphrase_file"`
	PassphraseFD   *int   `toml:"passphrase_fd"`
	// TPMDevice is the TPM; TPMPCRs bind the root key to registers of the SHA-256 bank.
	TPMDevice string `toml:"tpm_device"`
	TPMPCRs   []int  `toml:"tpm_pcrs"`
	// PKCS11Key is the label, or id=HEX, of the HSM's key; [kms.pkcs11] says which HSM.
	PKCS11Key string `toml:"pkcs11_key"`
}

const usualCredential = "sealblk-root"

var rootNames = []string{local.RootFile, local.RootCredential, local.RootPassphrase, rootTPM, rootPKCS11}

func (r rootConfig) check() error {
	switch {
	case r.Source != "" && !slices.Contains(rootNames, r.Source):
		return fmt.Errorf("kms.local.root.source %q: use %s", r.Source, strings.Join(rootNames, ", "))
	case r.PassphraseFile != "" && r.PassphraseFD != nil:
		return fmt.Errorf("kms.local.root: keep one of passphrase_file and passphrase_fd")
	case r.PassphraseFD != nil && (*r.PassphraseFD < 0 || *r.PassphraseFD == 1 || *r.PassphraseFD == 2):
		return fmt.Errorf("kms.local.root.passphrase_fd %d: use 0, or 3 and above", *r.PassphraseFD)
	}
	return nil
}

// rootSources are all sources but the file, as the configuration wants them. None is
// touched before it is used.
func rootSources(c config) map[string]local.RootSource {
	r := c.KMS.Local.Root
	name := r.Credential
	if name == "" {
		name = usualCredential
	}
	return map[string]local.RootSource{
		local.RootCredential: patient{local.CredentialSource{Name: name}},
		local.RootPassphrase: local.PassphraseSource{Ask: rootPassphrase.asker(r)},
		rootTPM:              tpm.Source{Device: r.TPMDevice, PCRs: r.TPMPCRs},
		rootPKCS11:           patient{pkcs11.Root{Config: c.KMS.PKCS11, Key: r.PKCS11Key}},
	}
}

func (a *app) kmsRootCommand() *cli.Command {
	return &cli.Command{
		Name: "root", Usage: "where the root key is kept",
		Description: "The root key opens all keys of the embedded KMS. It is in a file of the state directory, or\n" +
			"wrapped under a systemd credential, a passphrase, a TPM or a key of an HSM.",
		Subcommands: []*cli.Command{
			{Name: "show", Usage: "tell where the root key is kept", Action: a.kmsRootShow},
			{
				Name: "set", Usage: "move the root key to another source, or wrap it anew", Action: a.onKeys(a.kmsRootSet),
				Description: "The settings of the source are those of [kms.local.root]. The old source must still work; the\n" +
					"file root.key is overwritten and removed. Whoever copied it before can still open the keys.",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "source", Usage: "`SOURCE`: " + strings.Join(rootNames, ", ") + " (default: the configured one)"},
					&cli.StringFlag{Name: "new-passphrase-file", Usage: "`FILE` or pipe with the new passphrase (default: as configured, or ask the terminal)"},
				},
			},
		},
	}
}

// rootPlace is the result of the commands on the root key.
type rootPlace struct {
	Source     string `json:"source"`
	Configured string `json:"configured"`
}

func (a *app) kmsRootShow(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	config, err := loadConfig(c.String("config"))
	if err != nil {
		return err
	}
	place := rootPlace{Configured: config.KMS.Local.Root.Source}
	if place.Source, err = local.RootSourceOf(kmsDir(stateDir(c))); err != nil {
		return err
	}
	return a.printer(c).value(place, [][2]string{{"source", orDash(place.Source)}, {"configured", orDash(place.Configured)}})
}

func (a *app) kmsRootSet(c *cli.Context, kms *local.KMS, _ []string) error {
	config, err := loadConfig(c.String("config"))
	if err != nil {
		return err
	}
	place := rootPlace{Source: c.String("source"), Configured: config.KMS.Local.Root.Source}
	if place.Source == "" {
		place.Source = place.Configured
	}
	switch file := c.String("new-passphrase-file"); {
	case place.Source == "":
		return usagef("%s: --source is missing, and the configuration names none", c.Command.HelpName)
	case !slices.Contains(rootNames, place.Source):
		return usagef("source %q: use %s", place.Source, strings.Join(rootNames, ", "))
	case file != "" && place.Source != local.RootPassphrase:
		return usagef("%s: --new-passphrase-file is for --source passphrase", c.Command.HelpName)
	}
	source := rootSources(config)[place.Source]
	if place.Source == local.RootPassphrase {
		p, err := rootPassphrase.fresh(config.KMS.Local.Root, c.String("new-passphrase-file"))
		if err != nil {
			return err
		}
		defer p.Destroy()
		source = local.PassphraseSource{Ask: copies(p)}
	}
	if err := kms.SetRootSource(c.Context, place.Source, source); err != nil {
		return err
	}
	if place.Configured != "" && place.Configured != place.Source {
		a.warn(fmt.Sprintf("the configuration says source = %q in [kms.local.root]: a restored KMS would go there", place.Configured))
	}
	return a.printer(c).done(place, "the root key is kept by %s now", place.Source)
}

// checkRootKey tells where the root key is kept.
func checkRootKey(dir string, c config) diagnosis {
	const name = "root key"
	wanted := c.KMS.Local.Root.Source
	source, err := local.RootSourceOf(kmsDir(dir))
	switch {
	case err != nil:
		return diagnosis{name, broken, err.Error(), hintOf(err)}
	case source == "" && wanted == "":
		return diagnosis{name, healthy, "will be in a file", ""}
	case source == "":
		return diagnosis{name, healthy, "will be kept by " + wanted, ""}
	case wanted != "" && wanted != source:
		return diagnosis{name, lacking, "kept by " + source + ", and the configuration says " + wanted, "move it: sealblk kms root set"}
	}
	return diagnosis{name, healthy, "kept by " + source, ""}
}
