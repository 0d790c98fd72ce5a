package aliyun

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	openapi "github.com/alibabacloud-go/darabonba-openapi/v2/client"
	sdk "github.com/alibabacloud-go/kms-20160120/v3/client"
	util "github.com/alibabacloud-go/tea-utils/v2/service"
	"github.com/alibabacloud-go/tea/tea"

	"sealblk/internal/credential"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
	"sealblk/keymgr/wire"
)

// KMS is Alibaba Cloud KMS, in all regions that are asked for.
type KMS struct {
	config       Config
	certificates string
}

var _ keymgr.KMS = (*KMS)(nil)

// Open reads what the configuration names, but no pipe: that is for the first call. It
// connects to nothing.
func Open(ctx context.Context, c Config) (*KMS, error) {
	if slices.Contains(strings.Split(os.Getenv("DEBUG"), ","), "tea") {
		return nil, wire.Invalid("", "take tea out of the environment variable DEBUG: it has the SDK print what it sends", "DEBUG=tea")
	}
	if err := checkProxies(); err != nil {
		return nil, err
	}
	if _, err := c.endpoint("local"); err != nil {
		return nil, err
	}
	certificates, err := c.certificates()
	if err != nil {
		return nil, err
	}
	if !credential.IsPipe(c.Credentials) {
		if _, err := c.readCredentials(ctx); err != nil {
			return nil, err
		}
	}
	return &KMS{c, certificates}, nil
}

// client makes a client of the SDK, which is cheap: connections are kept elsewhere.
func (k *KMS) client(ctx context.Context, n name) (*sdk.Client, *util.RuntimeOptions, error) {
	key, err := k.config.readCredentials(ctx)
	if err != nil {
		return nil, nil, err
	}
	e, err := k.config.endpoint(n.region)
	if err != nil {
		return nil, nil, err
	}
	config := &openapi.Config{
		AccessKeyId: &key.ID, AccessKeySecret: &key.Secret, RegionId: &n.region,
		Endpoint: &e.host, Protocol: &e.protocol,
	}
	if key.Token != "" {
		config.SecurityToken = &key.Token
	}
	client, err := sdk.NewClient(config)
	if err != nil {
		return nil, nil, fmt.Errorf("make client: %w", err)
	}
	limit := int(k.config.timeout() / time.Millisecond)
	runtime := &util.RuntimeOptions{
		Autoretry: tea.Bool(false), IgnoreSSL: tea.Bool(false), MaxAttempts: tea.Int(1),
		ReadTimeout: tea.Int(max(limit, 1)), ConnectTimeout: tea.Int(max(limit/1000, 1)), // the SDK takes seconds here
		NoProxy: tea.String(e.direct(k.certificates)),
	}
	if k.certificates != "" {
		runtime.Ca = &k.certificates
	}
	return client, runtime, nil
}

// sender is a call of the SDK.
type sender[T any] func(*sdk.Client, *util.RuntimeOptions) (T, error)

// send makes a call. When ctx ends first it is left to its time-out, and drop gets what
// comes late.
func send[T any](ctx context.Context, k *KMS, n name, f sender[T], drop func(T)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	client, runtime, err := k.client(ctx, n)
	if err != nil {
		return none, err
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result)
	go func() {
		var r result
		r.value, r.err = f(client, runtime)
		select {
		case done <- r:
		case <-ctx.Done():
			drop(r.value)
		}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// call is send for a call whose result holds nothing to wipe.
func call[T any](ctx context.Context, k *KMS, what string, n name, opensBlob bool, f sender[T]) (T, error) {
	v, err := send(ctx, k, n, f, func(T) {})
	return v, finish(ctx, err, what, n, opensBlob)
}

func finish(ctx context.Context, err error, what string, n name, opensBlob bool) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", n, ctx.Err()) // the caller gave up
	}
	return explain(err, what, n, opensBlob)
}

// opened is a reply with a data key in it.
type opened struct {
	reply
	dk *secret.Buffer
}

// callForKey makes a call whose reply has a data key in it. The SDK signs, sends and
// hands the body over unread.
func (k *KMS) callForKey(ctx context.Context, action string, n name, opensBlob bool, query map[string]*string) (opened, error) {
	o, err := send(ctx, k, n, func(c *sdk.Client, runtime *util.RuntimeOptions) (opened, error) {
		answer, err := c.CallApi(params(action, "binary"), &openapi.OpenApiRequest{Query: query}, runtime)
		if err != nil {
			return opened{}, err
		}
		body, ok := answer["body"].(io.ReadCloser)
		if !ok {
			return opened{}, errors.New("the reply has no body")
		}
		defer body.Close()
		dk, r, err := readSecret(body)
		return opened{r, dk}, err
	}, func(o opened) { o.dk.Destroy() })
	if err != nil {
		return opened{}, finish(ctx, err, action, n, opensBlob)
	}
	if err := keymgr.CheckDataKey(o.dk); err != nil {
		o.dk.Destroy()
		return opened{}, &keymgr.Error{Code: wire.CodeReply, Key: n.String(), Hint: "make a new data key: sealblk disk create", Err: err}
	}
	return o, nil
}

// params describe an action to the SDK; a reply that is binary is handed over unread.
func params(action, reply string) *openapi.Params {
	return &openapi.Params{
		Action: &action, Version: tea.String("2016-01-20"), Protocol: tea.String("HTTPS"), Pathname: tea.String("/"),
		Method: tea.String("POST"), AuthType: tea.String("AK"), Style: tea.String("RPC"),
		ReqBodyType: tea.String("formData"), BodyType: &reply,
	}
}

// contextText is an encryption context as a parameter; nil if it is empty.
func contextText(ec keymgr.Context) (*string, error) {
	if len(ec) == 0 {
		return nil, nil
	}
	if _, err := ec.Encode(); err != nil {
		return nil, &keymgr.Error{Code: keymgr.CodeInvalid, Err: err}
	}
	text, err := json.Marshal(ec)
	return tea.String(string(text)), err
}

// contextMap is the same for the typed calls of the SDK.
func contextMap(ec keymgr.Context) map[string]any {
	if len(ec) == 0 {
		return nil
	}
	m := make(map[string]any, len(ec))
	for name, value := range ec {
		m[name] = value
	}
	return m
}

// GenerateDataKey makes a data key in the KMS.
func (k *KMS) GenerateDataKey(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
	n, err := parseName(key)
	if err != nil {
		return nil, keymgr.WrappedKey{}, err
	}
	context, err := contextText(ec)
	if err != nil {
		return nil, keymgr.WrappedKey{}, err
	}
	query := map[string]*string{"KeyId": &n.key, "NumberOfBytes": tea.String(fmt.Sprint(keymgr.DataKeySize))}
	if context != nil {
		query["EncryptionContext"] = context
	}
	o, err := k.callForKey(ctx, "GenerateDataKey", n, false, query)
	if err != nil {
		return nil, keymgr.WrappedKey{}, err
	}
	w, err := n.wrapped(o.KeyId, o.KeyVersionId, o.CiphertextBlob)
	if err != nil {
		o.dk.Destroy()
		return nil, keymgr.WrappedKey{}, err
	}
	return o.dk, w, nil
}

// GenerateDataKeyWithoutPlaintext makes a data key that does not leave the KMS. That
// its halves differ is seen when it is first unwrapped.
func (k *KMS) GenerateDataKeyWithoutPlaintext(ctx context.Context, key string, ec keymgr.Context) (keymgr.WrappedKey, error) {
	const action = "GenerateDataKeyWithoutPlaintext"
	n, err := parseName(key)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	if _, err := contextText(ec); err != nil {
		return keymgr.WrappedKey{}, err
	}
	out, err := call(ctx, k, action, n, false, func(c *sdk.Client, o *util.RuntimeOptions) (*sdk.GenerateDataKeyWithoutPlaintextResponse, error) {
		return c.GenerateDataKeyWithoutPlaintextWithOptions(&sdk.GenerateDataKeyWithoutPlaintextRequest{
			KeyId: &n.key, NumberOfBytes: tea.Int32(keymgr.DataKeySize), EncryptionContext: contextMap(ec),
		}, o)
	})
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	b := orEmpty(out.Body)
	return n.wrapped(tea.StringValue(b.KeyId), tea.StringValue(b.KeyVersionId), tea.StringValue(b.CiphertextBlob))
}

// Decrypt unwraps a data key. The blob must be one of the key, and of its version, that
// stand beside it.
func (k *KMS) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	n, err := parseWrapped(w)
	if err != nil {
		return nil, err
	}
	context, err := contextText(ec)
	if err != nil {
		return nil, err
	}
	query := map[string]*string{"CiphertextBlob": tea.String(string(w.Blob))}
	if context != nil {
		query["EncryptionContext"] = context
	}
	o, err := k.callForKey(ctx, "Decrypt", n, true, query)
	if err != nil {
		return nil, k.orDamaged(ctx, err, n)
	}
	if o.KeyId != n.key || o.KeyVersionId != w.Version {
		o.dk.Destroy()
		return nil, wire.Damaged(n, fmt.Sprintf("it was wrapped under %q version %q, not version %q of this key", o.KeyId, o.KeyVersionId, w.Version))
	}
	return o.dk, nil
}

// ReEncrypt wraps a data key under another key, or the newest version of the same one,
// inside the KMS. Both keys are of one region: a KMS has one.
func (k *KMS) ReEncrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, newKey string) (keymgr.WrappedKey, error) {
	from, err := parseWrapped(w)
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
	if _, err := contextText(ec); err != nil {
		return keymgr.WrappedKey{}, err
	}
	out, err := call(ctx, k, "ReEncrypt under "+to.String(), from, true, func(c *sdk.Client, o *util.RuntimeOptions) (*sdk.ReEncryptResponse, error) {
		return c.ReEncryptWithOptions(&sdk.ReEncryptRequest{
			CiphertextBlob: tea.String(string(w.Blob)), DestinationKeyId: &to.key,
			SourceEncryptionContext: contextMap(ec), DestinationEncryptionContext: contextMap(ec),
		}, o)
	})
	if err != nil {
		return keymgr.WrappedKey{}, k.orDamaged(ctx, err, from, to)
	}
	b := orEmpty(out.Body)
	return to.wrapped(tea.StringValue(b.KeyId), tea.StringValue(b.KeyVersionId), tea.StringValue(b.CiphertextBlob))
}

// orDamaged looks into "not found": where the keys of a call are there, its blob names
// another one.
func (k *KMS) orDamaged(ctx context.Context, err error, keys ...name) error {
	if !errors.Is(err, keymgr.ErrNotFound) {
		return err
	}
	for _, n := range keys {
		if _, gone := k.DescribeKey(ctx, n.region+"/"+n.key); gone != nil {
			return err
		}
	}
	return wire.Damaged(keys[0], "it names a key that is not there")
}

// DescribeKey tells what the KMS knows of a key.
func (k *KMS) DescribeKey(ctx context.Context, key string) (keymgr.KeyInfo, error) {
	n, err := parseName(key)
	if err != nil {
		return keymgr.KeyInfo{}, err
	}
	out, err := call(ctx, k, "DescribeKey", n, false, func(c *sdk.Client, o *util.RuntimeOptions) (*sdk.DescribeKeyResponse, error) {
		return c.DescribeKeyWithOptions(&sdk.DescribeKeyRequest{KeyId: &n.key}, o)
	})
	if err != nil {
		return keymgr.KeyInfo{}, err
	}
	return n.info(orEmpty(orEmpty(out.Body).KeyMetadata))
}

// orEmpty is what is not there.
func orEmpty[T any](p *T) *T {
	if p == nil {
		return new(T)
	}
	return p
}
