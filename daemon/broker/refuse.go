package broker

import (
	"context"
	"errors"
	"fmt"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// errNotBrokered: workers make and change no keys.
var errNotBrokered = fmt.Errorf("a worker only unwraps its data key: %w", errors.ErrUnsupported)

// GenerateDataKey is refused.
func (*Client) GenerateDataKey(context.Context, string, keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
	return nil, keymgr.WrappedKey{}, errNotBrokered
}

// GenerateDataKeyWithoutPlaintext is refused.
func (*Client) GenerateDataKeyWithoutPlaintext(context.Context, string, keymgr.Context) (keymgr.WrappedKey, error) {
	return keymgr.WrappedKey{}, errNotBrokered
}

// ReEncrypt is refused.
func (*Client) ReEncrypt(context.Context, keymgr.WrappedKey, keymgr.Context, string) (keymgr.WrappedKey, error) {
	return keymgr.WrappedKey{}, errNotBrokered
}

// DescribeKey is refused.
func (*Client) DescribeKey(context.Context, string) (keymgr.KeyInfo, error) {
	return keymgr.KeyInfo{}, errNotBrokered
}
