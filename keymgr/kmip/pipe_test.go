package kmip

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/ovh/kmip-go"

	"sealblk/keymgr/kmstest"
)

func TestKeyIsAPipe(t *testing.T) {
	good := (&fake{keys: map[string]fakeKey{"a": active("")}, versions: slices.Clone(versions), offers: []kmip.Operation{}}).start(t)
	content, err := os.ReadFile(good.Key)
	if err != nil {
		t.Fatal(err)
	}
	err = kmstest.CheckPipe(t, content, func(ctx context.Context, pipe string, timeout time.Duration) error {
		c := good
		c.Key, c.Timeout = pipe, timeout
		k, err := Open(ctx, c)
		if err != nil {
			return err
		}
		defer k.Close()
		_, err = k.DescribeKey(ctx, "a")
		return err
	})
	if err != nil {
		t.Errorf("DescribeKey: %v", err)
	}
}
