package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"sealblk/daemon/broker"
	"sealblk/daemon/kmsserver"
	"sealblk/daemon/worker"
	"sealblk/keymgr"
	"sealblk/keymgr/aliyun"
	"sealblk/keymgr/aws"
	"sealblk/keymgr/kmip"
	"sealblk/keymgr/pkcs11"
	"sealblk/keymgr/vault"
)

// config is the configuration file. What it does not say has a default; what the
// program does not know is an error.
type config struct {
	KMS struct {
		Local struct {
			// Region names the site that this host's embedded KMS serves.
			Region string `toml:"region"`
			// Root says where the root key is kept.
			Root rootConfig `toml:"root"`
		} `toml:"local"`
		// Serve is for sealblk kms serve.
		Serve kmsserver.Config `toml:"serve"`
		// Aliyun is Alibaba Cloud KMS, and every kms serve of another host.
		Aliyun aliyun.Config `toml:"aliyun"`
		Vault  vault.Config  `toml:"vault"`
		// PKCS11 is an HSM.
		PKCS11 pkcs11.Config `toml:"pkcs11"`
		// AWS is AWS KMS, KMIP a server that speaks that.
		AWS  aws.Config  `toml:"aws"`
		KMIP kmip.Config `toml:"kmip"`
	} `toml:"kms"`
	Guard struct {
		// Directory of a BPF file system in which the key guard is pinned.
		Directory string `toml:"directory"`
	} `toml:"guard"`
	Worker struct {
		// User that exports become when they are started as root, by name or number.
		User string `toml:"user"`
		// Sandbox is "on", the default, or "off" for debugging.
		Sandbox string `toml:"sandbox"`
		// KeyDeadline is how long an export waits for a KMS that does not answer.
		KeyDeadline time.Duration `toml:"key_deadline"`
		// KeyCheckInterval is how often a KMS is asked for the state of a disk's key that
		// does not tell of changes by itself, as the embedded one does.
		KeyCheckInterval time.Duration `toml:"key_check_interval"`
		// KeyLossGrace is how long a disk whose key is lost is served before its I/O fails,
		// if it is to be detached then.
		KeyLossGrace time.Duration `toml:"key_loss_grace"`
	} `toml:"worker"`
}

func loadConfig(path string) (config, error) {
	var c config
	c.Worker.KeyDeadline, c.Worker.KeyCheckInterval = keymgr.PatientRetry.Silence, broker.DefaultInterval
	c.Worker.KeyLossGrace = worker.DefaultLossGrace
	if path == "" {
		return c, nil
	}
	meta, err := toml.DecodeFile(path, &c)
	if errors.Is(err, os.ErrNotExist) {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	if err != nil {
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		names := make([]string, len(unknown))
		for i, k := range unknown {
			names[i] = k.String()
		}
		return c, fmt.Errorf("configuration %s: unknown key %s: remove it, or correct its name", path, strings.Join(names, ", "))
	}
	if s := c.Worker.Sandbox; s != "" && s != "on" && s != "off" {
		return c, fmt.Errorf("configuration %s: worker.sandbox %q: use on or off", path, s)
	}
	if err := c.KMS.Local.Root.check(); err != nil {
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, c.checkTimes(path)
}

func (c *config) checkTimes(path string) error {
	for _, t := range []struct {
		name        string
		value       time.Duration
		least, most time.Duration
	}{
		{"key_deadline", c.Worker.KeyDeadline, time.Second, time.Hour},
		{"key_check_interval", c.Worker.KeyCheckInterval, time.Second, time.Hour},
		{"key_loss_grace", c.Worker.KeyLossGrace, 0, 24 * time.Hour},
	} {
		if t.value < t.least || t.value > t.most {
			return fmt.Errorf("configuration %s: worker.%s %v: use %v to %v", path, t.name, t.value, t.least, t.most)
		}
	}
	return nil
}
