package aws

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"sealblk/keymgr"
	"sealblk/keymgr/aws/awstest"
	"sealblk/keymgr/kmstest"
	"sealblk/keymgr/wire"
)

// testStates: what moto knows of states, and what AWS says besides.
func testStates(t *testing.T, s *awstest.Server) {
	k, id := open(t, configOf(s)), s.NewKey(t)
	dk, w := kmstest.Generate(t, k, in(id))
	ctx := t.Context()
	all := func(what string, sentinel error, code string, prepare func()) {
		t.Helper()
		for name, call := range map[string]func() error{
			"GenerateDataKey": func() error { _, _, err := k.GenerateDataKey(ctx, in(id), kmstest.Disk("1")); return err },
			"GenerateDataKeyWithoutPlaintext": func() error {
				_, err := k.GenerateDataKeyWithoutPlaintext(ctx, in(id), kmstest.Disk("1"))
				return err
			},
			"Decrypt":   func() error { _, err := k.Decrypt(ctx, w, kmstest.Disk("1")); return err },
			"ReEncrypt": func() error { _, err := k.ReEncrypt(ctx, w, kmstest.Disk("1"), in(id)); return err },
		} {
			prepare()
			kmstest.WantError(t, name+", "+what, call(), sentinel, code)
		}
	}
	refuse := func(code string) func() {
		return func() {
			s.Fail(1, awstest.Answer{Status: http.StatusBadRequest, Code: code, Message: "arn is not usable"})
		}
	}
	state := func(want keymgr.State) {
		t.Helper()
		if info, err := k.DescribeKey(ctx, in(id)); err != nil || info.State != want {
			t.Errorf("state %s, %v, want %s", info.State, err, want)
		}
	}

	if _, err := s.Admin.DisableKey(ctx, &kms.DisableKeyInput{KeyId: &id}); err != nil {
		t.Fatal(err)
	}
	state(keymgr.Disabled)
	all("disabled", keymgr.ErrDisabled, "DisabledException", func() {})
	all("disabled, in other words", keymgr.ErrDisabled, codeInvalidState, refuse(codeInvalidState))
	if _, err := s.Admin.EnableKey(ctx, &kms.EnableKeyInput{KeyId: &id}); err != nil {
		t.Fatal(err)
	}
	state(keymgr.Enabled)
	kmstest.WantOpens(t, k, w, dk)
	all("a state that nobody knows", keymgr.ErrState, codeInvalidState, refuse(codeInvalidState))

	if _, err := s.Admin.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: &id}); err != nil {
		t.Fatal(err)
	}
	state(keymgr.PendingDeletion)
	all("pending deletion", keymgr.ErrPendingDeletion, codeInvalidState, func() {})

	for code, sentinel := range map[string]error{
		"AccessDeniedException": keymgr.ErrAccessDenied, "ExpiredTokenException": keymgr.ErrAccessDenied,
		"UnrecognizedClientException": keymgr.ErrAccessDenied, "IncorrectKeyException": keymgr.ErrCorrupt,
		"KeyUnavailableException": keymgr.ErrUnreachable, "KMSInternalException": keymgr.ErrUnreachable,
		"DependencyTimeoutException": keymgr.ErrUnreachable, "InvalidKeyUsageException": keymgr.ErrInvalid,
		"NotFoundException": keymgr.ErrNotFound,
	} {
		all(code, sentinel, code, refuse(code))
	}
	refuse("NewException")()
	if _, err := k.DescribeKey(ctx, in(id)); !errors.Is(err, keymgr.ErrInvalid) || !strings.Contains(err.Error(), "NewException") {
		t.Errorf("a code that nobody knows: %v", err)
	}
}

func testCredentials(t *testing.T, s *awstest.Server) {
	id := s.NewKey(t)
	c := configOf(s)
	c.Credentials = filepath.Join(t.TempDir(), "credentials")
	k := open(t, c)
	describe := func() error {
		_, err := k.DescribeKey(t.Context(), in(id))
		if err != nil && strings.Contains(err.Error(), "open-sesame") {
			t.Errorf("the error shows the secret: %v", err)
		}
		return err
	}
	kmstest.WantError(t, "no file", describe(), keymgr.ErrAccessDenied, wire.CodeNoCredentials)
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(c.Credentials, []byte(text), 0o600), os.Chmod(c.Credentials, mode)); err != nil {
			t.Fatal(err)
		}
	}
	write("[other]\naws_access_key_id = A\n", 0o600)
	kmstest.WantError(t, "another profile", describe(), keymgr.ErrAccessDenied, wire.CodeNoCredentials)
	write("[default]\naws_access_key_id = AKIA\naws_secret_access_key = open-sesame\naws_session_token = T\n", 0o644)
	kmstest.WantError(t, "a file for all to read", describe(), keymgr.ErrAccessDenied, wire.CodeNoCredentials)
	write("[default]\naws_access_key_id = AKIA\naws_secret_access_key = open-sesame\naws_session_token = T\n", 0o600)
	if err := describe(); err != nil {
		t.Errorf("a good file, in the same process: %v", err)
	}
}
