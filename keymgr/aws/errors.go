package aws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"sealblk/keymgr"
	"sealblk/keymgr/wire"
)

// verdict is what an answer of AWS means here.
type verdict wire.Verdict

const (
	hintPolicy = "allow this principal in the key's policy, or in an IAM policy: kms:GenerateDataKey*, kms:Decrypt, kms:ReEncrypt*, kms:DescribeKey, under this encryption context"
	hintKeys   = "check the access key in kms.aws.credentials, and the host's clock"
	hintStore  = "reconnect the custom key store"
	hintReply  = "check kms.aws.endpoint, and what stands between this host and it"
	hintBusy   = "the KMS is busy: try again, or ask AWS for a higher request quota"
)

var verdicts = map[string]verdict{
	"DisabledException":             {keymgr.ErrDisabled, "enable the key: aws kms enable-key"},
	"NotFoundException":             {keymgr.ErrNotFound, "check key id, region and account"},
	"InvalidCiphertextException":    {wire.ErrEither, wire.HintBlob},
	"IncorrectKeyException":         {keymgr.ErrCorrupt, wire.HintBlob},
	"InvalidKeyUsageException":      {keymgr.ErrInvalid, "choose a symmetric key for encryption"},
	"InvalidArnException":           {keymgr.ErrInvalid, "check the key's name"},
	"ValidationException":           {keymgr.ErrInvalid, "check the key's name"},
	"AccessDeniedException":         {keymgr.ErrAccessDenied, hintPolicy},
	"DryRunOperationException":      {keymgr.ErrAccessDenied, hintPolicy},
	"InvalidGrantTokenException":    {keymgr.ErrAccessDenied, hintPolicy},
	"NotAuthorizedException":        {keymgr.ErrAccessDenied, hintPolicy},
	"ExpiredTokenException":         {keymgr.ErrCredentials, "the session token has expired: renew kms.aws.credentials"},
	"UnrecognizedClientException":   {keymgr.ErrCredentials, hintKeys},
	"InvalidClientTokenId":          {keymgr.ErrCredentials, hintKeys},
	"InvalidSignatureException":     {keymgr.ErrCredentials, hintKeys},
	"SignatureDoesNotMatch":         {keymgr.ErrCredentials, hintKeys},
	"IncompleteSignature":           {keymgr.ErrCredentials, hintKeys},
	"MissingAuthenticationToken":    {keymgr.ErrCredentials, hintKeys},
	"OptInRequired":                 {keymgr.ErrAccessDenied, "enable the region for the account"},
	"ThrottlingException":           {keymgr.ErrThrottled, hintBusy},
	"Throttling":                    {keymgr.ErrThrottled, hintBusy},
	"TooManyRequestsException":      {keymgr.ErrThrottled, hintBusy},
	"RequestLimitExceeded":          {keymgr.ErrThrottled, hintBusy},
	"LimitExceededException":        {keymgr.ErrThrottled, hintBusy},
	"KeyUnavailableException":       {keymgr.ErrUnreachable, hintBusy},
	"DependencyTimeoutException":    {keymgr.ErrUnreachable, hintBusy},
	"KMSInternalException":          {keymgr.ErrUnreachable, hintBusy},
	"InternalFailure":               {keymgr.ErrUnreachable, hintBusy},
	"ServiceUnavailable":            {keymgr.ErrUnreachable, hintBusy},
	"ServiceUnavailableException":   {keymgr.ErrUnreachable, hintBusy},
	"RequestExpired":                {keymgr.ErrCredentials, hintKeys},
	"CloudHsmClusterInvalid":        {keymgr.ErrUnreachable, hintBusy},
	"XksKeyInvalidConfiguration":    {keymgr.ErrUnreachable, hintBusy},
	"CustomKeyStoreInvalidState":    {keymgr.ErrUnreachable, hintStore},
	"UnsupportedOperationException": {keymgr.ErrInvalid, "choose a symmetric key for encryption"},
}

const codeInvalidState = "KMSInvalidStateException"

// explain makes an error of the SDK one of this program.
func (k *KMS) explain(ctx context.Context, err error, about []name) error {
	var ours *keymgr.Error
	var api smithy.APIError
	switch {
	case errors.As(err, &ours):
		return ours
	case !errors.As(err, &api):
		return k.noAnswer(err, about[0])
	case api.ErrorCode() == codeInvalidState:
		return k.invalidState(ctx, api, about)
	}
	v, known := verdicts[api.ErrorCode()]
	if !known {
		v = byStatus(err, api.ErrorCode())
	}
	return &keymgr.Error{Code: api.ErrorCode(), Key: subject(about, api), Hint: v.Hint, Err: said(v.Err, api)}
}

// subject names the key that AWS talks about, or all that were asked about.
func subject(about []name, api smithy.APIError) string {
	var names []string
	for _, n := range about {
		if len(about) > 1 && strings.Contains(api.ErrorMessage(), n.key) {
			return n.String()
		}
		names = append(names, n.String())
	}
	return strings.Join(slices.Compact(names), " or ")
}

// said adds the words of AWS, where it has any.
func said(err error, api smithy.APIError) error {
	if m := api.ErrorMessage(); m != "" && m != codeUnknown && m != api.ErrorCode() {
		return fmt.Errorf("%w: %s", err, m)
	}
	return err
}

// codeUnknown is the SDK's for an answer that has none.
const codeUnknown = "UnknownError"

// byStatus judges an answer whose code is not known, or that has none. AWS KMS refuses by
// the status 400 and a code: another refusal is of what stands in front of it.
func byStatus(err error, code string) verdict {
	var resp *awshttp.ResponseError
	if !errors.As(err, &resp) {
		return verdict{keymgr.ErrInvalid, ""}
	}
	status := resp.HTTPStatusCode()
	refusal := status == http.StatusBadRequest && code != codeUnknown
	if refusal || status == http.StatusTooManyRequests || status >= http.StatusInternalServerError {
		return verdict(wire.ByStatus(status, hintBusy, hintPolicy, ""))
	}
	return verdict{keymgr.ErrUnreachable, hintReply}
}

// invalidState finds out which state it is: the answer says it in words only.
func (k *KMS) invalidState(ctx context.Context, api smithy.APIError, about []name) error {
	for _, n := range about {
		m, err := k.DescribeKey(ctx, n.region+"/"+n.key)
		if sentinel, known := stateErrors[m.State]; err == nil && known {
			return &keymgr.Error{Code: codeInvalidState, Key: n.String(), Hint: stateHints[m.State], Err: said(sentinel, api)}
		}
	}
	return &keymgr.Error{Code: codeInvalidState, Key: subject(about, api), Hint: "see aws kms describe-key", Err: said(keymgr.ErrState, api)}
}

var stateErrors = map[keymgr.State]error{
	keymgr.Disabled:        keymgr.ErrDisabled,
	keymgr.PendingDeletion: keymgr.ErrPendingDeletion,
	keymgr.PendingImport:   keymgr.ErrPendingImport,
	unavailable:            keymgr.ErrUnreachable,
}

var stateHints = map[keymgr.State]string{
	keymgr.Disabled:        "enable the key: aws kms enable-key",
	keymgr.PendingDeletion: "take the deletion back: aws kms cancel-key-deletion, then aws kms enable-key",
	keymgr.PendingImport:   "import the key material again: aws kms import-key-material",
	unavailable:            hintStore,
}

// noAnswer: the call did not get to the KMS, or nothing that parses came back.
func (k *KMS) noAnswer(err error, n name) error {
	hint := "check the network, kms.aws.endpoint and the region; what runs goes on running"
	var resp *awshttp.ResponseError
	sentinel := keymgr.ErrUnreachable
	switch {
	case wire.Untrusted(err):
		hint = "set kms.aws.ca to the certificates that vouch for the endpoint"
	case errors.Is(err, keymgr.ErrCorrupt):
		return &keymgr.Error{Code: wire.CodeReply, Key: n.String(), Hint: "the endpoint does not answer as AWS KMS does", Err: plain(err, keymgr.ErrCorrupt)}
	case errors.As(err, &resp) && resp.HTTPStatusCode() >= http.StatusBadRequest:
		sentinel = byStatus(err, codeUnknown).Err
	}
	return &keymgr.Error{Code: wire.CodeUnreachable, Key: n.String(), Hint: hint, Err: plain(err, sentinel)}
}

// plain is the root of the SDK's error, whose own text names the operation and ids over
// and over.
func plain(err, sentinel error) error {
	var send *smithy.OperationError
	if errors.As(err, &send) {
		err = send.Err
	}
	var request *awshttp.ResponseError
	if errors.As(err, &request) {
		err = request.Err
	}
	if errors.Is(err, sentinel) {
		return err
	}
	return fmt.Errorf("%w: %w", sentinel, err)
}

// noCredentials: there is nothing to sign with. Who gives them may come up after this
// host, as the KMS may.
func noCredentials(err error) error {
	if giverDown(err) {
		return &keymgr.Error{
			Code: wire.CodeNoCredentials, Hint: "see that this host reaches the service that gives it credentials, as the metadata service of an instance, or set kms.aws.credentials to a file with an access key",
			Err: fmt.Errorf("%w: no credentials for AWS: %w", keymgr.ErrUnreachable, err),
		}
	}
	return &keymgr.Error{
		Code: wire.CodeNoCredentials, Hint: "set kms.aws.credentials to a file with an access key, mode 0600, or give the host a role",
		Err: fmt.Errorf("%w: no credentials for AWS: %w", keymgr.ErrCredentials, err),
	}
}

// giverDown tells whether a service that gives credentials does not answer.
func giverDown(err error) bool {
	var send *smithyhttp.RequestSendError
	var answer *smithyhttp.ResponseError
	return errors.As(err, &send) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &answer) && answer.HTTPStatusCode() >= http.StatusInternalServerError
}
