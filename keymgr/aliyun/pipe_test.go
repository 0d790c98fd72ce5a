package aliyun

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest"
)

func TestCredentialsAreAPipe(t *testing.T) {
	c := newCloud(t)
	content, err := os.ReadFile(c.credentials)
	must(t, err)
	err = kmstest.CheckPipe(t, content, func(ctx context.Context, pipe string, timeout time.Duration) error {
		config := c.config(c.addr)
		config.Credentials, config.Timeout = pipe, timeout
		k, err := Open(ctx, config)
		if err == nil {
			_, err = k.DescribeKey(ctx, "local/key")
		}
		return err
	})
	if !errors.Is(err, keymgr.ErrNotFound) {
		t.Errorf("DescribeKey: %v", err)
	}
}
