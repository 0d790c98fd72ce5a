package aws

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest"
)

func TestCredentialsAreAPipe(t *testing.T) {
	k, _ := inFront(t, http.StatusBadRequest, `{"__type":"NotFoundException"}`)
	err := kmstest.CheckPipe(t, []byte("[default]\naws_access_key_id = A\naws_secret_access_key = B\n"), func(ctx context.Context, pipe string, timeout time.Duration) error {
		c := k.config
		c.Credentials, c.Timeout = pipe, timeout
		_, err := open(t, c).DescribeKey(ctx, in("key"))
		return err
	})
	if !errors.Is(err, keymgr.ErrNotFound) {
		t.Errorf("DescribeKey: %v", err)
	}
}
