package kmsserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"sealblk/keymgr"
	"sealblk/keymgr/local"
)

var (
	// ErrPlain: a listener without TLS that other hosts can reach.
	ErrPlain = errors.New("plain HTTP is for the loopback interface only")
	// ErrAccessKeys: the file of access keys cannot be used.
	ErrAccessKeys = errors.New("access keys cannot be used")
	// ErrNoAccessKey: there is no such access key.
	ErrNoAccessKey = errors.New("no such access key")
)

// Codes of the service that are about the request.
const (
	codeMissing     = "MissingParameter"
	codeInvalid     = keymgr.CodeInvalid
	codeUnsupported = "UnsupportedOperation"
	codeAction      = "InvalidAction.NotFound"
	codeVersion     = "InvalidVersion"
	codeMethod      = "UnsupportedHTTPMethod"
	codeAccessKey   = "InvalidAccessKeyId.NotFound"
	codeSignature   = "SignatureDoesNotMatch"
	codeIncomplete  = "IncompleteSignature"
	codeNoTime      = "IllegalTimestamp"
	codeTime        = "InvalidTimeStamp.Expired"
	codeNonce       = "SignatureNonceUsed"
	codeThrottled   = "Rejected.Throttling"
	codeStarting    = "ServiceUnavailableTemporary"
	codeInternal    = "InternalFailure"
	codeNoVersion   = "Forbidden.KeyVersionNotFound"
	codeToken       = "InvalidImportToken"
	codeTokenOld    = "ExpiredImportToken"
	codeParse       = "ParseRequestParameterException"
)

// fault is an error as a client sees it.
type fault struct {
	code    string
	message string
}

func (f *fault) Error() string { return f.message + " (" + f.code + ")" }

func faultf(code, format string, args ...any) error {
	return &fault{code, fmt.Sprintf(format, args...)}
}

// statuses are the HTTP statuses of codes, where they are not 400.
var statuses = map[string]int{
	codeAction: http.StatusNotFound, codeAccessKey: http.StatusNotFound, codeNoVersion: http.StatusNotFound,
	codeMethod: http.StatusForbidden, codeThrottled: http.StatusTooManyRequests,
	codeStarting: http.StatusServiceUnavailable, codeInternal: http.StatusInternalServerError,

	local.CodeDisabled: http.StatusConflict, local.CodePendingDeletion: http.StatusConflict,
	local.CodePendingImport: http.StatusConflict, local.CodeState: http.StatusConflict,
	local.CodeInUse: http.StatusConflict, local.CodeProtected: http.StatusConflict,
	local.CodeKeyNotFound: http.StatusNotFound, local.CodeAliasNotFound: http.StatusNotFound,
	local.CodeAccessDenied: http.StatusForbidden,
	local.CodeDamaged:      http.StatusInternalServerError, local.CodeAudit: http.StatusInternalServerError,
}

func statusOf(code string) int {
	if s, ok := statuses[code]; ok {
		return s
	}
	return http.StatusBadRequest
}

// wayOut is the action that mends what a code is about; the hint of the KMS has the
// command that does the same.
var wayOut = map[string]string{
	local.CodeDisabled:        "call EnableKey",
	local.CodePendingDeletion: "call CancelKeyDeletion",
	local.CodePendingImport:   "call GetParametersForImport and ImportKeyMaterial",
	local.CodeProtected:       "call SetDeletionProtection",
	local.CodeAliasExists:     "call UpdateAlias",
}

// wayOutOf is the same for the states that refuse a change (StateModifiedFailed).
var wayOutOf = map[keymgr.State]string{
	keymgr.PendingDeletion: wayOut[local.CodePendingDeletion],
	keymgr.PendingImport:   wayOut[local.CodePendingImport],
	keymgr.Disabled:        wayOut[local.CodeDisabled],
}

// faultOf makes of any error what the client may see of it. What has no code stays in
// the server's log.
func faultOf(err error) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	var e *keymgr.Error
	switch {
	case errors.As(err, &e) && e.Code != "" && statusOf(e.Code) < 500:
		return &fault{e.Code, message(e)}
	case errors.As(err, &e) && e.Code != "":
		return &fault{e.Code, "the KMS's files are damaged, see the server's log"} // paths are nobody's business
	case errors.Is(err, context.Canceled):
		return &fault{codeStarting, "the server is stopping, try again"}
	}
	return &fault{codeInternal, "the request failed, see the server's log for its RequestId"}
}

// message says which key, in which state, and the way out.
func message(e *keymgr.Error) string {
	if e.Code == local.CodeKeyNotFound && e.Key == "" {
		return "there are no keys yet; call CreateKey" // the KMS's own words name its folder
	}
	s := strings.TrimSuffix(e.Error(), " ("+e.Code+")")
	way := wayOut[e.Code]
	if e.Code == local.CodeState {
		for state, w := range wayOutOf {
			if strings.Contains(s, "state "+string(state)) {
				way = w
			}
		}
	}
	switch {
	case way != "" && e.Hint != "":
		return s + "; " + way + ", or on its host: " + e.Hint
	case e.Hint != "":
		return s + "; " + e.Hint
	}
	return s
}
