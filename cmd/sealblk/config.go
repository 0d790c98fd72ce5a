package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/BurntSushi/toml"
)

// config is the configuration file. What it does not say has a default; what the
// program does not know is an error.
type config struct {
	KMS struct {
		Local struct {
			// Region names the site that this host's embedded KMS serves.
			Region string `toml:"region"`
		} `toml:"local"`
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
	} `toml:"worker"`
}

func loadConfig(path string) (config, error) {
	var c config
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
	return c, nil
}
