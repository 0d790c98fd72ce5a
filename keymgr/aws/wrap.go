package aws

import (
	"bytes"
	"context"
	"io"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// Wrap wraps a data key that was made elsewhere. The caller keeps dk. It needs the
// permission kms:Encrypt.
func (k *KMS) Wrap(ctx context.Context, key string, dk *secret.Buffer, ec keymgr.Context) (keymgr.WrappedKey, error) {
	n, err := parse(key, ec)
	if err == nil {
		err = keymgr.CheckDataKey(dk)
	}
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	// Not the locked memory itself: when ctx ends, net/http may still be reading.
	plain := bytes.Clone(dk.Bytes())
	defer clear(plain)
	var material *string
	var out *kms.EncryptOutput
	err = k.call(ctx, func(ctx context.Context, c *kms.Client) error {
		// Asked before: if the material changes between the two, the version is an old
		// one and a re-wrap is done once more.
		if m, err := describe(ctx, c, n); err == nil {
			material = m.CurrentKeyMaterialId
		}
		out, err = c.Encrypt(ctx, &kms.EncryptInput{KeyId: &n.key, Plaintext: plain, EncryptionContext: ec}, wiped)
		return err
	}, n)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	return n.wrapped(out.KeyId, material, out.CiphertextBlob)
}

// wiped has the body of a request overwritten when the call is over.
func wiped(o *kms.Options) {
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		return stack.Finalize.Add(middleware.FinalizeMiddlewareFunc("WipeBody", wipeBody), middleware.Before)
	})
}

func wipeBody(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
	out, data, err := next.HandleFinalize(ctx, in)
	if r, ok := in.Request.(*smithyhttp.Request); ok {
		wipeReader(r.GetStream())
	}
	return out, data, err
}

// wipeReader reaches the bytes behind a reader: it hands them to whom it writes to.
func wipeReader(r io.Reader) {
	b, ok := r.(*bytes.Reader)
	if !ok {
		return
	}
	if _, err := b.Seek(0, io.SeekStart); err == nil {
		b.WriteTo(eraser{}) //nolint:errcheck // an eraser takes everything
	}
}

type eraser struct{}

func (eraser) Write(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
