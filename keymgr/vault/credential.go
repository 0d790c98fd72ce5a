package vault

import (
	"bytes"
	"fmt"

	"sealblk/internal/credential"
	"sealblk/keymgr"
)

// readCredential is what is in a file or a systemd credential, without the space around
// it. The client library wants strings.
func readCredential(setting, name string) (string, error) {
	data, err := credential.Read(name)
	if err == nil && len(bytes.TrimSpace(data)) == 0 {
		err = fmt.Errorf("%s is empty", name)
	}
	if err != nil {
		return "", badCredential(setting, err)
	}
	defer clear(data)
	return string(bytes.TrimSpace(data)), nil
}

// private checks a file that the client library reads by itself.
func private(setting, name string) (path string, err error) {
	if name == "" {
		return "", nil
	}
	if path, err = credential.Path(name); err != nil {
		return "", badCredential(setting, err)
	}
	return path, nil
}

func badCredential(setting string, err error) error {
	return &keymgr.Error{
		Code: keymgr.CodeInvalid, Hint: "see " + setting + " of [kms.vault]",
		Err: fmt.Errorf("%w: %w", err, keymgr.ErrInvalid),
	}
}
