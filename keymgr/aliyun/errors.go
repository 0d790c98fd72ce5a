package aliyun

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/alibabacloud-go/tea/tea"

	"sealblk/keymgr"
	"sealblk/keymgr/wire"
)

// verdict is what an answer of the service means here.
type verdict wire.Verdict

const (
	hintPolicy = "allow this access key kms:GenerateDataKey, kms:GenerateDataKeyWithoutPlaintext, kms:Decrypt, kms:ReEncrypt and kms:DescribeKey on the key"
	hintKeys   = "check the access key in kms.aliyun.credentials"
	hintClock  = "check the clocks of this host and of the KMS"
	hintBusy   = "the KMS is busy: try again, or ask for a higher quota"
	hintReply  = "check kms.aliyun.endpoint, and what stands between this host and it"
	hintName   = "check the key's name and its region"
)

var verdicts = map[string]verdict{
	"Rejected.Disabled":           {keymgr.ErrDisabled, "enable the key: EnableKey"},
	"Rejected.PendingDeletion":    {keymgr.ErrPendingDeletion, "take the deletion back: CancelKeyDeletion"},
	"Rejected.PendingImport":      {keymgr.ErrPendingImport, "import the key material: ImportKeyMaterial"},
	"Rejected.Unavailable":        {keymgr.ErrState, "see the key's state: DescribeKey"},
	"Rejected.Throttling":         {keymgr.ErrThrottled, hintBusy},
	"Throttling":                  {keymgr.ErrThrottled, hintBusy},
	"Rejected.LimitExceeded":      {keymgr.ErrThrottled, hintBusy},
	"InternalFailure":             {keymgr.ErrUnreachable, hintBusy},
	"ServiceUnavailableTemporary": {keymgr.ErrUnreachable, hintBusy},
	"ServiceUnavailable":          {keymgr.ErrUnreachable, hintBusy},
	"InternalError":               {keymgr.ErrUnreachable, hintBusy},
	"Forbidden.KeyNotFound":       {keymgr.ErrNotFound, hintName},
	"Forbidden.AliasNotFound":     {keymgr.ErrNotFound, hintName},
	"Forbidden.KeyVersionNotFound": {
		keymgr.ErrNotFound, "the version of the key that wrapped this is not there any more",
	},
	"InvalidAccessKeyId.NotFound": {keymgr.ErrCredentials, hintKeys},
	"InvalidAccessKeyId.Inactive": {keymgr.ErrCredentials, hintKeys},
	"InvalidAccessKeyId":          {keymgr.ErrCredentials, hintKeys},
	"InvalidSecurityToken":        {keymgr.ErrCredentials, "the security token has expired: renew kms.aliyun.credentials"},
	"SignatureDoesNotMatch":       {keymgr.ErrCredentials, hintKeys},
	"IncompleteSignature":         {keymgr.ErrCredentials, hintKeys},
	"InvalidTimeStamp":            {keymgr.ErrCredentials, hintClock},
	"IllegalTimestamp":            {keymgr.ErrCredentials, hintClock},
	"SignatureNonceUsed":          {keymgr.ErrUnreachable, "try again"},
	"NoPermission":                {keymgr.ErrAccessDenied, hintPolicy},
	"Forbidden":                   {keymgr.ErrAccessDenied, hintPolicy},
	"InvalidEncryptionContext":    {keymgr.ErrContextMismatch, wire.HintBlob},
	"InvalidCiphertext":           {keymgr.ErrCorrupt, wire.HintBlob},
	"UnsupportedOperation":        {keymgr.ErrInvalid, "choose a symmetric key, Aliyun_AES_256"},
}

// judge looks a code up, then what stands before its last dot, and so on.
func judge(code string, status int, opensBlob bool) verdict {
	if opensBlob && code == keymgr.CodeInvalid {
		return verdict{wire.ErrEither, wire.HintBlob}
	}
	for c := code; c != ""; {
		if v, ok := verdicts[c]; ok {
			return v
		}
		c = c[:max(strings.LastIndexByte(c, '.'), 0)]
	}
	if status == http.StatusNotFound {
		return verdict{keymgr.ErrNotFound, hintName}
	}
	return verdict(wire.ByStatus(status, hintBusy, hintPolicy, hintName))
}

// explain makes an error of the SDK one of this program. opensBlob: the call was about
// a blob, which may be to blame.
func explain(err error, what string, n name, opensBlob bool) error {
	var ours *keymgr.Error
	if errors.As(err, &ours) {
		return ours
	}
	if errors.Is(err, keymgr.ErrCorrupt) {
		return oddReply(n, what+": the endpoint does not answer as a KMS does")
	}
	var sdk *tea.SDKError
	if !errors.As(err, &sdk) || !ofService(sdk) {
		return noAnswer(err, what, n)
	}
	code := tea.StringValue(sdk.Code)
	v := judge(code, tea.IntValue(sdk.StatusCode), opensBlob)
	return &keymgr.Error{
		Code: code, Key: n.String(), Hint: v.Hint,
		Err: fmt.Errorf("%s: %w: %s", what, v.Err, oneLine(tea.StringValue(sdk.Message))),
	}
}

// ofService tells the service's own refusal from that of a proxy: each of the service's
// has a code and the id of the request.
func ofService(e *tea.SDKError) bool {
	var answer struct{ Code, RequestId string }
	err := json.Unmarshal([]byte(tea.StringValue(e.Data)), &answer)
	return err == nil && answer.Code != "" && answer.RequestId != ""
}

// noAnswer: the call did not get to the KMS, or nothing that parses came back.
func noAnswer(err error, what string, n name) error {
	hint := "check the network, kms.aliyun.endpoint and the region; what runs goes on running"
	if wire.Untrusted(err) {
		hint = "set kms.aliyun.ca to the certificates that vouch for the endpoint"
	}
	var u *url.Error
	var network net.Error
	switch {
	case errors.As(err, &u): // its text has the whole URL, with all parameters
		err = u.Err
	case errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("the answer broke off")
	default:
		err = errors.New("the answer is not one of a KMS")
	}
	return &keymgr.Error{
		Code: wire.CodeUnreachable, Key: n.String(), Hint: hint,
		Err: fmt.Errorf("%s: %w: %w", what, keymgr.ErrUnreachable, err),
	}
}

// noCredentials: there is nothing to sign with.
func noCredentials(err error) error {
	return &keymgr.Error{
		Code: wire.CodeNoCredentials, Hint: "set kms.aliyun.credentials to a file with an access key, mode 0600",
		Err: fmt.Errorf("%w: %w", keymgr.ErrCredentials, err),
	}
}

// oddReply blames who answered, and no disk.
func oddReply(n name, why string) error {
	return &keymgr.Error{Code: wire.CodeReply, Key: n.String(), Hint: hintReply, Err: fmt.Errorf("%w: %s", keymgr.ErrCorrupt, why)}
}

// maxWords of what a service says, in bytes.
const maxWords = 1024

// oneLine shows what a service says on one line.
func oneLine(s string) string {
	visible := func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}
	s = strings.ToValidUTF8(s[:min(len(s), maxWords)], "?")
	return strings.Join(strings.Fields(strings.Map(visible, s)), " ")
}
