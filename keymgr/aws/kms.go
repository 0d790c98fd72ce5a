package aws

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
	"sealblk/keymgr/wire"
)

// KMS is AWS KMS, in all regions that are asked for.
type KMS struct {
	config Config
	http   *http.Transport

	mu      sync.Mutex
	clients map[string]*kms.Client // by region
}

var (
	_ keymgr.KMS     = (*KMS)(nil)
	_ keymgr.Wrapper = (*KMS)(nil)
)

// Open reads what the configuration names. It connects to nothing.
func Open(_ context.Context, c Config) (*KMS, error) {
	if err := c.checkEndpoint(); err != nil {
		return nil, err
	}
	t, err := c.newTransport()
	if err != nil {
		return nil, err
	}
	return &KMS{config: c, http: t, clients: make(map[string]*kms.Client)}, nil
}

// Close closes idle connections.
func (k *KMS) Close() error {
	k.http.CloseIdleConnections()
	return nil
}

// client makes the client of a region. It does not retry: keymgr.Set does.
func (k *KMS) client(ctx context.Context, region string) (*kms.Client, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c, ok := k.clients[region]; ok {
		return c, nil
	}
	credentials, err := k.config.credentials(ctx, region)
	if err != nil {
		return nil, err
	}
	o := kms.Options{
		Region: region, Credentials: credentials, Retryer: aws.NopRetryer{},
		HTTPClient: &http.Client{Transport: interceptor{k.http}, CheckRedirect: noRedirect},
	}
	if k.config.Endpoint != "" {
		o.BaseEndpoint = &k.config.Endpoint
	}
	k.clients[region] = kms.New(o)
	return k.clients[region], nil
}

// noRedirect: what is signed for one host is for that host.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// call makes one call about keys, the first of which says where.
func (k *KMS) call(ctx context.Context, f func(context.Context, *kms.Client) error, about ...name) error {
	within, cancel := context.WithTimeout(ctx, k.config.timeout())
	defer cancel()
	c, err := k.client(within, about[0].region)
	if err == nil {
		err = f(within, c)
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", about[0], ctx.Err()) // the caller gave up
	}
	return k.explain(ctx, err, about)
}

// callForKey makes a call whose reply has a data key in it, and returns that.
func (k *KMS) callForKey(ctx context.Context, n name, f func(context.Context, *kms.Client) error) (*secret.Buffer, error) {
	var catch catcher
	err := k.call(catch.in(ctx), f, n)
	dk := catch.dk
	if err == nil && dk == nil {
		err = wire.Damaged(n, "the reply has no data key in it")
	}
	if err == nil {
		err = keymgr.CheckDataKey(dk)
	}
	if err != nil {
		dk.Destroy()
		return nil, err
	}
	return dk, nil
}

// GenerateDataKey makes a data key in the KMS.
func (k *KMS) GenerateDataKey(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
	n, err := parse(key, ec)
	if err != nil {
		return nil, keymgr.WrappedKey{}, err
	}
	var out *kms.GenerateDataKeyOutput
	dk, err := k.callForKey(ctx, n, func(ctx context.Context, c *kms.Client) (err error) {
		out, err = c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{
			KeyId: &n.key, NumberOfBytes: aws.Int32(keymgr.DataKeySize), EncryptionContext: ec,
		})
		return err
	})
	if err != nil {
		return nil, keymgr.WrappedKey{}, err
	}
	w, err := n.wrapped(out.KeyId, out.KeyMaterialId, out.CiphertextBlob)
	if err != nil {
		dk.Destroy()
		return nil, keymgr.WrappedKey{}, err
	}
	return dk, w, nil
}

// GenerateDataKeyWithoutPlaintext makes a data key that does not leave the KMS. That
// its halves differ is seen when it is first unwrapped.
func (k *KMS) GenerateDataKeyWithoutPlaintext(ctx context.Context, key string, ec keymgr.Context) (keymgr.WrappedKey, error) {
	n, err := parse(key, ec)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	var out *kms.GenerateDataKeyWithoutPlaintextOutput
	err = k.call(ctx, func(ctx context.Context, c *kms.Client) (err error) {
		out, err = c.GenerateDataKeyWithoutPlaintext(ctx, &kms.GenerateDataKeyWithoutPlaintextInput{
			KeyId: &n.key, NumberOfBytes: aws.Int32(keymgr.DataKeySize), EncryptionContext: ec,
		})
		return err
	}, n)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	return n.wrapped(out.KeyId, out.KeyMaterialId, out.CiphertextBlob)
}

// Decrypt unwraps a data key. The blob must be one of the key that its URI names.
func (k *KMS) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	n, err := parseWrapped(w, ec)
	if err != nil {
		return nil, err
	}
	var out *kms.DecryptOutput
	dk, err := k.callForKey(ctx, n, func(ctx context.Context, c *kms.Client) (err error) {
		out, err = c.Decrypt(ctx, &kms.DecryptInput{KeyId: &n.key, CiphertextBlob: w.Blob, EncryptionContext: ec})
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := n.mustBe(out.KeyId); err != nil {
		dk.Destroy()
		return nil, err
	}
	return dk, nil
}

// ReEncrypt wraps a data key under another key, or the newest material of the same one,
// inside the KMS. Both keys are of one region: AWS does it no other way.
func (k *KMS) ReEncrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, newKey string) (keymgr.WrappedKey, error) {
	from, err := parseWrapped(w, ec)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	to, err := parseName(newKey)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	if from.region != to.region {
		return keymgr.WrappedKey{}, wire.Invalid(to.String(), "choose a key in "+from.region, "re-encrypt under a key in another region")
	}
	var out *kms.ReEncryptOutput
	err = k.call(ctx, func(ctx context.Context, c *kms.Client) (err error) {
		out, err = c.ReEncrypt(ctx, &kms.ReEncryptInput{
			CiphertextBlob: w.Blob,
			SourceKeyId:    &from.key, SourceEncryptionContext: ec,
			DestinationKeyId: &to.key, DestinationEncryptionContext: ec,
		})
		return err
	}, from, to)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	if err := from.mustBe(out.SourceKeyId); err != nil {
		return keymgr.WrappedKey{}, err
	}
	return to.wrapped(out.KeyId, out.DestinationKeyMaterialId, out.CiphertextBlob)
}

// DescribeKey tells what AWS tells of a key.
func (k *KMS) DescribeKey(ctx context.Context, key string) (keymgr.KeyInfo, error) {
	n, err := parseName(key)
	if err != nil {
		return keymgr.KeyInfo{}, err
	}
	var m *types.KeyMetadata
	err = k.call(ctx, func(ctx context.Context, c *kms.Client) (err error) {
		m, err = describe(ctx, c, n)
		return err
	}, n)
	if err != nil {
		return keymgr.KeyInfo{}, err
	}
	return n.info(m), nil
}

func describe(ctx context.Context, c *kms.Client, n name) (*types.KeyMetadata, error) {
	out, err := c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &n.key})
	if err != nil {
		return nil, err
	}
	if out.KeyMetadata == nil {
		return nil, wire.Damaged(n, "the reply describes no key")
	}
	return out.KeyMetadata, nil
}

func (n name) info(m *types.KeyMetadata) keymgr.KeyInfo {
	info := keymgr.KeyInfo{
		URI: n.holder(aws.ToString(m.Arn)).String(), KeyID: aws.ToString(m.KeyId), State: stateOf(m.KeyState),
		Origin: string(m.Origin), Description: aws.ToString(m.Description), Service: m.KeyManager == types.KeyManagerTypeAws,
		PrimaryVersion: aws.ToString(m.CurrentKeyMaterialId), Versions: 1, Region: n.region,
		Created: aws.ToTime(m.CreationDate), DeletionDate: m.DeletionDate, MaterialExpires: m.ValidTo,
	}
	if strings.HasPrefix(n.key, "alias/") {
		info.Aliases = []string{n.key}
	}
	return info
}

// stateOf maps the states of AWS to those that the disk service knows.
func stateOf(s types.KeyState) keymgr.State {
	switch s {
	case types.KeyStateEnabled, types.KeyStateUpdating:
		return keymgr.Enabled
	case types.KeyStatePendingDeletion, types.KeyStatePendingReplicaDeletion:
		return keymgr.PendingDeletion
	case types.KeyStatePendingImport:
		return keymgr.PendingImport
	case types.KeyStateDisabled:
		return keymgr.Disabled
	}
	return keymgr.State(s) // Creating, Unavailable, and what AWS adds: the key is not lost
}

// unavailable is the state of a key in a key store that is not connected.
const unavailable = keymgr.State(types.KeyStateUnavailable)

// parse checks what a call is about before anything is sent.
func parse(key string, ec keymgr.Context) (name, error) {
	if _, err := ec.Encode(); err != nil {
		return name{}, &keymgr.Error{Code: keymgr.CodeInvalid, Err: err}
	}
	return parseName(key)
}

func parseWrapped(w keymgr.WrappedKey, ec keymgr.Context) (name, error) {
	uri, err := keymgr.ParseURI(w.URI)
	if err != nil {
		return name{}, err
	}
	if uri.Scheme != Scheme {
		return name{}, wire.Invalid(w.URI, "a wrapped key opens at the KMS that its URI names", "open a wrapped key of another KMS")
	}
	n, err := parse(uri.Key, ec)
	if err == nil && (len(w.Blob) == 0 || len(w.Blob) > maxBlob) {
		err = wire.Damaged(n, fmt.Sprintf("the wrapped key has %d bytes", len(w.Blob)))
	}
	return n, err
}

// maxBlob is the most that the API takes.
const maxBlob = 6144

// wrapped is a reply as a wrapped key.
func (n name) wrapped(arn, material *string, blob []byte) (keymgr.WrappedKey, error) {
	if aws.ToString(arn) == "" || len(blob) == 0 {
		return keymgr.WrappedKey{}, wire.Damaged(n, "the reply has no wrapped key in it")
	}
	return keymgr.WrappedKey{URI: n.holder(*arn).String(), Version: aws.ToString(material), Blob: blob}, nil
}

// mustBe refuses an answer under another key. AWS itself does; what speaks its language
// may not.
func (n name) mustBe(arn *string) error {
	if id, ok := idOf(aws.ToString(arn)); ok && n.id() != "" && id != n.id() {
		return wire.Damaged(n, "the wrapped key was made under "+id)
	}
	return nil
}
