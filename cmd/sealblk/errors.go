package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"sealblk/blockdev/luks"
	"sealblk/daemon/attach"
	"sealblk/daemon/kmsserver"
	"sealblk/disk"
	"sealblk/keymgr"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a command line that cannot be understood.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// failure is an error as the user sees it.
type failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// report prints an error, on one line, and returns the exit code.
func report(w io.Writer, err error, asJSON bool) int {
	f := explain(err)
	if asJSON {
		json.NewEncoder(w).Encode(map[string]failure{"error": f}) //nolint:errcheck // stderr is the last resort
	} else {
		line := f.Message
		if f.Hint != "" {
			line += "; " + f.Hint
		}
		fmt.Fprintln(w, "sealblk:", oneLine(line))
	}
	if f.Code == codeUsage {
		return exitUsage
	}
	return exitFailed
}

// oneLine shows a text that may hold anything, such as the name of a file, on one line
// of a terminal.
func oneLine(s string) string {
	s = strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ") // joined errors
	visible := func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}
	return strings.Map(visible, strings.Join(strings.Fields(s), " "))
}

const codeUsage = "Usage"

// codes are what scripts may test for, beside the KMS's own codes.
var codes = []struct {
	err  error
	code string
}{
	{disk.ErrLocalEncrypted, "LocalDiskEncryption"},
	{disk.ErrNotFound, "NotFound"},
	{disk.ErrExists, "AlreadyExists"},
	{disk.ErrInUse, "InUse"},
	{disk.ErrInvalid, "InvalidArgument"},
	{disk.ErrBackend, "BackendUnavailable"},
	{disk.ErrTooShort, "BackendTooShort"},
	{disk.ErrMismatch, "HeaderMismatch"},
	{disk.ErrRecord, "RecordDamaged"},
	{disk.ErrNotEncrypted, "NotEncrypted"},
	{disk.ErrNotSelfDescribing, "NotSelfDescribing"},
	{attach.ErrAttached, "AlreadyAttached"},
	{attach.ErrNotAttached, "NotAttached"},
	{attach.ErrBusy, "InUse"},
	{luks.ErrTooShort, "BackendTooShort"},
	{luks.ErrWrongKey, "WrongKey"},
	{luks.ErrNoHeader, "HeaderDamaged"},
	{luks.ErrDamaged, "HeaderDamaged"},
	{kmsserver.ErrPlain, "PlainHTTP"},
	{kmsserver.ErrAccessKeys, "AccessKeys"},
	{kmsserver.ErrNoAccessKey, "NotFound"},
	{keymgr.ErrNotFound, "KeyNotFound"},
	{keymgr.ErrAccessDenied, "AccessDenied"},
	{keymgr.ErrContextMismatch, "ContextMismatch"},
	{keymgr.ErrCorrupt, "KeyDataDamaged"},
	{keymgr.ErrUnreachable, "KMSUnreachable"},
	{keymgr.ErrThrottled, "KMSThrottled"},
	{keymgr.ErrInvalid, "InvalidArgument"},
	{keymgr.ErrUnsupported, keymgr.CodeUnsupported},
	{luks.ErrDigestPending, "DigestPending"},
	{context.Canceled, "Interrupted"},
}

func explain(err error) failure {
	message := strings.ReplaceAll(err.Error(), context.Canceled.Error(), "interrupted")
	f := failure{Code: "Failed", Message: message, Hint: hintOf(err)}
	if f.Hint != "" {
		f.Message = strings.Replace(f.Message, "; "+f.Hint, "", 1) // some errors end in their own advice
	}
	var usage *usageError
	var key *keymgr.Error
	switch {
	case errors.As(err, &usage):
		f.Code = codeUsage
		return f
	case errors.As(err, &key) && key.Code != "":
		f.Code = key.Code
		return f
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			f.Code = c.code
			break
		}
	}
	return f
}

// hintOf is the outermost advice in an error's chain.
func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	var key *keymgr.Error
	if errors.As(err, &key) {
		return key.Hint
	}
	return ""
}

// wantsJSON looks for the output flag where the command line itself was not
// understood.
func wantsJSON(args []string) bool {
	for i, word := range args {
		name, value, inside := strings.Cut(word, "=")
		if name != "--output" && name != "-output" {
			continue
		}
		if !inside && i+1 < len(args) {
			value = args[i+1]
		}
		return value == "json"
	}
	return false
}
