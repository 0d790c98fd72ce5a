package vault

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"sealblk/keymgr"
	"sealblk/keymgr/wire"
)

// readCredential is what is in a file or a systemd credential, without the space around
// it. The client library wants strings.
func (c Config) readCredential(ctx context.Context, setting, name string) (string, error) {
	data, err := c.read(ctx, setting, name)
	defer clear(data)
	text := string(bytes.TrimSpace(data))
	if err == nil && text == "" {
		err = badCredential(setting, fmt.Errorf("%s is empty", name))
	}
	return text, err
}

func (c Config) read(ctx context.Context, setting, name string) ([]byte, error) {
	return wire.ReadCredential(ctx, c.timeout(), name, func(err error) error { return badCredential(setting, err) })
}

// pair is the certificate of this host with its key, if it has one.
func (c Config) pair(ctx context.Context) (certificate, key []byte, err error) {
	if c.ClientKeyFile == "" {
		return nil, nil, nil
	}
	if certificate, err = os.ReadFile(c.ClientCertFile); err != nil {
		return nil, nil, badCredential("client_cert_file", fmt.Errorf("read certificate: %w", err))
	}
	key, err = c.read(ctx, "client_key_file", c.ClientKeyFile)
	return certificate, key, err
}

func badCredential(setting string, err error) error {
	return &keymgr.Error{
		Code: keymgr.CodeInvalid, Hint: "see " + setting + " of [kms.vault]",
		Err: fmt.Errorf("%w: %w", err, keymgr.ErrInvalid),
	}
}
