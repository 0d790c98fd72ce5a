package aliyun

import (
	"context"
	"encoding/base64"

	openapi "github.com/alibabacloud-go/darabonba-openapi/v2/client"
	sdk "github.com/alibabacloud-go/kms-20160120/v3/client"
	util "github.com/alibabacloud-go/tea-utils/v2/service"
	"github.com/alibabacloud-go/tea/tea"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

var _ keymgr.Wrapper = (*KMS)(nil)

// Wrap wraps a data key that was made elsewhere, by Encrypt. The key goes in the body of
// the request, not in its URL, where the SDK's own method puts it; on its way through the
// SDK it is in strings that nobody can wipe.
func (k *KMS) Wrap(ctx context.Context, key string, dk *secret.Buffer, ec keymgr.Context) (keymgr.WrappedKey, error) {
	n, err := parseName(key)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	if err := keymgr.CheckDataKey(dk); err != nil {
		return keymgr.WrappedKey{}, err
	}
	context, err := contextText(ec)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	request := &openapi.OpenApiRequest{
		Query: map[string]*string{"KeyId": &n.key},
		Body:  map[string]any{"Plaintext": base64.StdEncoding.EncodeToString(dk.Bytes())},
	}
	if context != nil {
		request.Query["EncryptionContext"] = context
	}
	out, err := call(ctx, k, "Encrypt", n, false, func(c *sdk.Client, runtime *util.RuntimeOptions) (*sdk.EncryptResponse, error) {
		answer, err := c.CallApi(params("Encrypt", "json"), request, runtime)
		out := &sdk.EncryptResponse{}
		if err == nil {
			err = tea.Convert(answer, out)
		}
		return out, err
	})
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	b := orEmpty(out.Body)
	return n.wrapped(tea.StringValue(b.KeyId), tea.StringValue(b.KeyVersionId), tea.StringValue(b.CiphertextBlob))
}
