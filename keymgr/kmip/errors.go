package kmip

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/ttlv"

	"sealblk/keymgr"
	"sealblk/keymgr/wire"
)

// Codes that errors carry where the server has none of its own.
const (
	CodeContext     = "InvalidEncryptionContext"
	CodeBlob        = "InvalidCiphertext"
	CodeState       = "KeyNotActive"
	CodeCertificate = "CertificateRefused"
	CodeNotFound    = "ItemNotFound"
)

// refusal is an operation that the server did not carry out.
type refusal struct {
	operation kmip.Operation
	reason    kmip.ResultReason
	message   string
}

func (r *refusal) Error() string {
	s := "the server refuses " + ttlv.EnumStr(r.operation) + ": " + ttlv.EnumStr(r.reason)
	if r.message != "" {
		s += ": " + r.message
	}
	return s
}

// refusedWith tells whether a server refused for one of these reasons.
func refusedWith(err error, reasons ...kmip.ResultReason) bool {
	var no *refusal
	return errors.As(err, &no) && slices.Contains(reasons, no.reason)
}

// namesNoKey: the operation is a question about the server, so its refusal says nothing of
// a key.
func (r *refusal) namesNoKey() bool {
	return r.operation == kmip.OperationDiscoverVersions || r.operation == kmip.OperationQuery
}

// aboutServer is what the loss of a key means where none was named.
func aboutServer(loss error) verdict {
	if errors.Is(loss, keymgr.ErrAccessDenied) {
		return verdict{keymgr.ErrCredentials, "let the owner of this client certificate use the server"}
	}
	return verdict{keymgr.ErrInvalid, "see the log of the server"}
}

// verdict is what an answer of the server means here.
type verdict wire.Verdict

const (
	hintBlob   = "the wrapped key was altered or cut; restore the disk's header from a backup"
	hintRights = "let the owner of this client certificate use the key"
)

var verdicts = map[kmip.ResultReason]verdict{
	kmip.ResultReasonItemNotFound:                {keymgr.ErrNotFound, "check the key's identifier; a server may also say this of a key that others own"},
	kmip.ResultReasonPermissionDenied:            {keymgr.ErrAccessDenied, hintRights},
	kmip.ResultReasonAuthenticationNotSuccessful: {keymgr.ErrCredentials, "let the server know this client certificate"},
	kmip.ResultReasonSensitive:                   {keymgr.ErrAccessDenied, "the server does not hand out this key: set kms.kmip.mode to encrypt"},
	kmip.ResultReasonNotExtractable:              {keymgr.ErrAccessDenied, "the server does not hand out this key: set kms.kmip.mode to encrypt"},
	kmip.ResultReasonOperationNotSupported:       {keymgr.ErrInvalid, "set kms.kmip.mode to get, or to auto"},
	kmip.ResultReasonFeatureNotSupported:         {keymgr.ErrInvalid, "set kms.kmip.mode to get"},
	kmip.ResultReasonObjectArchived:              {keymgr.ErrDisabled, "recover the key from the server's archive"},
	kmip.ResultReasonKeyValueNotPresent:          {keymgr.ErrPendingImport, "give the server the key's material back"},
	kmip.ResultReasonCryptographicFailure:        {keymgr.ErrCorrupt, hintBlob},
}

// explain makes any failure one of this program.
func explain(ctx context.Context, key string, err error) error {
	var ours *keymgr.Error
	var no *refusal
	switch {
	case err == nil || errors.As(err, &ours):
		return err
	case errors.As(err, &no):
		return no.explain(key)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", key, ctx.Err()) // the caller gave up
	case errors.Is(err, errUnreadable):
		return &keymgr.Error{Code: CodeBlob, Key: key, Hint: "check the server", Err: fmt.Errorf("%w: %w", keymgr.ErrCorrupt, err)}
	}
	return noAnswer(key, err)
}

func (r *refusal) explain(key string) error {
	v, known := verdicts[r.reason]
	switch {
	case known && r.namesNoKey() && keymgr.IsLoss(v.Err):
		v = aboutServer(v.Err)
	case known:
	case r.operation == kmip.OperationDecrypt && r.reason == kmip.ResultReasonGeneralFailure:
		// Some servers say no more than this of a tag that does not fit.
		v = verdict{keymgr.ErrCorrupt, hintBlob}
	default:
		v = verdict{keymgr.ErrInvalid, "see the log of the server"}
	}
	return &keymgr.Error{Code: ttlv.EnumStr(r.reason), Key: key, Hint: v.Hint, Err: fmt.Errorf("%w: %w", v.Err, r)}
}

// noAnswer: the connection could not be made, or was lost.
func noAnswer(key string, err error) error {
	e := &keymgr.Error{
		Code: wire.CodeUnreachable, Key: key, Hint: "check the network and kms.kmip.address; what runs goes on running",
		Err: fmt.Errorf("%w: %w", keymgr.ErrUnreachable, err),
	}
	switch {
	case wire.Untrusted(err):
		e.Hint = "set kms.kmip.ca to the certificates that vouch for the server"
	case certificateRefused(err):
		e.Code, e.Hint = CodeCertificate, "the server refuses this client certificate: check kms.kmip.certificate"
		e.Err = fmt.Errorf("%w: %w", keymgr.ErrCredentials, err)
	}
	return e
}

// certificateAlerts are the alerts of TLS about the certificate of who gets them (RFC 8446,
// section 6). Others are about the server, or what stands between.
var certificateAlerts = []tls.AlertError{
	42,  // bad_certificate
	43,  // unsupported_certificate
	44,  // certificate_revoked
	45,  // certificate_expired
	46,  // certificate_unknown
	48,  // unknown_ca
	49,  // access_denied
	51,  // decrypt_error, OpenSSL's for one that its authority did not sign
	116, // certificate_required
}

// certificateRefused tells whether the server does not take this host's certificate.
// crypto/tls tells the alert by its text only.
func certificateRefused(err error) bool {
	var alert *net.OpError
	return errors.As(err, &alert) && alert.Op == "remote error" &&
		slices.ContainsFunc(certificateAlerts, func(a tls.AlertError) bool { return a.Error() == alert.Err.Error() })
}

func badBlob(key, why string) error {
	return &keymgr.Error{Code: CodeBlob, Key: key, Hint: hintBlob, Err: fmt.Errorf("open wrapped key: %s: %w", why, keymgr.ErrCorrupt)}
}

// notActive is the error for a key in another state than Active.
func notActive(key string, s kmip.State) error {
	e := &keymgr.Error{Code: CodeState, Key: key, Err: fmt.Errorf("%w: the server calls it %s", keymgr.ErrDisabled, ttlv.EnumStr(s))}
	switch s {
	case kmip.StatePreActive:
		e.Hint = "activate the key on the server"
	case kmip.StateDestroyed, kmip.StateDestroyedCompromised:
		e.Code, e.Err = CodeNotFound, fmt.Errorf("%w: it was destroyed", keymgr.ErrNotFound)
		e.Hint = "what was encrypted under it is lost, unless the server has a backup"
	default:
		e.Hint = "a key that was revoked does not become active again: disks under it need its replacement before that"
	}
	return e
}
