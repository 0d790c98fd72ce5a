package kmsserver

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"testing"

	sdk "github.com/alibabacloud-go/kms-20160120/v3/client"
	"github.com/alibabacloud-go/tea/tea"

	"sealblk/keymgr"
	"sealblk/keymgr/local"
)

// The codes of the table, and "" for a call that works.
const (
	ok       = ""
	disabled = "Rejected.Disabled"
	deletion = "Rejected.PendingDeletion"
	imports_ = "Rejected.PendingImport"
	change   = "Rejected.StateModifiedFailed"
)

type row struct {
	call                                              string
	enabled, disabled, pendingDeletion, pendingImport string
	// external rows are for keys of external origin only.
	external bool
	do       func(*cell) error
}

// stateTable is the reference cloud's published table of what each call gives for a key
// in each state, called through its official SDK.
//
//	call                             Enabled  Disabled  PendingDeletion  PendingImport
var stateTable = []row{
	{"GenerateDataKey", ok, disabled, deletion, imports_, false, (*cell).generateDataKey},
	{"GenerateDataKeyWithoutPlaintext", ok, disabled, deletion, imports_, false, (*cell).generateDataKeyWithoutPlaintext},
	{"Encrypt", ok, disabled, deletion, imports_, false, (*cell).encrypt},
	{"Decrypt", ok, disabled, deletion, imports_, false, (*cell).decrypt},
	{"ReEncrypt from the key", ok, disabled, deletion, imports_, false, (*cell).reEncryptFrom},
	{"ReEncrypt to the key", ok, disabled, deletion, imports_, false, (*cell).reEncryptTo},
	{"DescribeKey", ok, ok, ok, ok, false, (*cell).describeKey},
	{"ListKeys", ok, ok, ok, ok, false, (*cell).listKeys},
	{"UpdateKeyDescription", ok, ok, deletion, ok, false, (*cell).updateKeyDescription},
	{"EnableKey", ok, ok, change, change, false, (*cell).enableKey},
	{"DisableKey", ok, ok, change, change, false, (*cell).disableKey},
	{"ScheduleKeyDeletion", ok, ok, change, ok, false, (*cell).scheduleKeyDeletion},
	{"CancelKeyDeletion", change, change, ok, change, false, (*cell).cancelKeyDeletion},
	{"CreateAlias", ok, ok, change, ok, false, (*cell).createAlias},
	{"UpdateAlias", ok, ok, deletion, ok, false, (*cell).updateAlias},
	{"DeleteAlias", ok, ok, ok, ok, false, (*cell).deleteAlias},
	{"ListAliases", ok, ok, ok, ok, false, (*cell).listAliases},
	{"ListAliasesByKeyId", ok, ok, ok, ok, false, (*cell).listAliasesByKeyID},
	{"CreateKeyVersion", ok, disabled, deletion, imports_, false, (*cell).createKeyVersion},
	{"ListKeyVersions", ok, ok, ok, ok, false, (*cell).listKeyVersions},
	{"DescribeKeyVersion", ok, ok, ok, ok, false, (*cell).describeKeyVersion},
	{"UpdateRotationPolicy", ok, ok, deletion, ok, false, (*cell).updateRotationPolicy},
	{"SetDeletionProtection", ok, ok, deletion, ok, false, (*cell).setDeletionProtection},
	{"GetParametersForImport", ok, ok, ok, ok, true, (*cell).getParametersForImport},
	{"ImportKeyMaterial", ok, ok, change, ok, true, (*cell).importKeyMaterial},
	{"DeleteKeyMaterial", ok, ok, ok, ok, true, (*cell).deleteKeyMaterial},
}

// stateAfter is the state that a call leaves where it works; others leave it.
var stateAfter = map[string]keymgr.State{
	"EnableKey": keymgr.Enabled, "DisableKey": keymgr.Disabled, "ScheduleKeyDeletion": keymgr.PendingDeletion,
	"CancelKeyDeletion": keymgr.Enabled,
}

// ways out of the states, by the names of the calls.
var ways = map[keymgr.State]string{
	keymgr.Disabled: "EnableKey", keymgr.PendingDeletion: "CancelKeyDeletion", keymgr.PendingImport: "ImportKeyMaterial",
	keymgr.Enabled: "key show",
}

// cell is a call on a key in a state.
type cell struct {
	*site
	admin, service *sdk.Client
	id             string
	blob           string // of the key
	other          string // another key, enabled
	otherBlob      string
}

func TestStateTable(t *testing.T) {
	s := newSite(t)
	other, w := s.newKey(keymgr.Enabled, false)
	for _, r := range stateTable {
		for state, code := range map[keymgr.State]string{
			keymgr.Enabled: r.enabled, keymgr.Disabled: r.disabled,
			keymgr.PendingDeletion: r.pendingDeletion, keymgr.PendingImport: r.pendingImport,
		} {
			t.Run(r.call+"/"+string(state), func(t *testing.T) {
				s.t = t
				id, mine := s.newKey(state, r.external || state == keymgr.PendingImport)
				c := &cell{s, s.client(local.Operator), s.client(local.DiskService), id, text(mine), other, text(w)}
				c.want(r.call, r.do(c), state, code)
			})
		}
	}
	s.t = t
}

func text(w keymgr.WrappedKey) string { return base64.StdEncoding.EncodeToString(w.Blob) }

// want checks a call's result against the table, and that an error names the key, its
// state and the way out.
func (c *cell) want(call string, err error, state keymgr.State, code string) {
	c.t.Helper()
	after := state
	if code == ok {
		if err != nil {
			c.t.Errorf("refused: %v", err)
		}
		if s, changes := stateAfter[call]; changes {
			after = s
		}
		if call == "DeleteKeyMaterial" && state != keymgr.PendingDeletion {
			after = keymgr.PendingImport
		}
		if call == "ImportKeyMaterial" && state == keymgr.PendingImport {
			after = keymgr.Enabled
		}
	} else {
		message := tea.StringValue(wantCode(c.t, call, err, code, 409).Message)
		for _, part := range []string{c.id, "state " + string(state), ways[state]} {
			if !strings.Contains(message, part) {
				c.t.Errorf("the message %q does not have %q", message, part)
			}
		}
	}
	out, err := c.admin.DescribeKey(&sdk.DescribeKeyRequest{KeyId: &c.id})
	if err != nil || tea.StringValue(out.Body.KeyMetadata.KeyState) != string(after) {
		c.t.Errorf("afterwards: %v, %v, want the state %s", out, err, after)
	}
}

func (c *cell) generateDataKey() error {
	_, err := c.service.GenerateDataKey(&sdk.GenerateDataKeyRequest{KeyId: &c.id, NumberOfBytes: tea.Int32(64), EncryptionContext: contextOf(disk1)})
	return err
}

func (c *cell) generateDataKeyWithoutPlaintext() error {
	_, err := c.service.GenerateDataKeyWithoutPlaintext(&sdk.GenerateDataKeyWithoutPlaintextRequest{KeyId: &c.id, NumberOfBytes: tea.Int32(64)})
	return err
}

func (c *cell) encrypt() error {
	_, err := c.service.Encrypt(&sdk.EncryptRequest{KeyId: &c.id, Plaintext: tea.String("SGVsbG8=")})
	return err
}

func (c *cell) decrypt() error {
	_, err := c.service.Decrypt(&sdk.DecryptRequest{CiphertextBlob: &c.blob, EncryptionContext: contextOf(disk1)})
	return err
}

func (c *cell) reEncryptFrom() error { return c.reEncrypt(c.blob, c.other) }
func (c *cell) reEncryptTo() error   { return c.reEncrypt(c.otherBlob, c.id) }

func (c *cell) reEncrypt(blob, to string) error {
	_, err := c.service.ReEncrypt(&sdk.ReEncryptRequest{
		CiphertextBlob: &blob, DestinationKeyId: &to,
		SourceEncryptionContext: contextOf(disk1), DestinationEncryptionContext: contextOf(disk1),
	})
	return err
}

func (c *cell) describeKey() error {
	_, err := c.service.DescribeKey(&sdk.DescribeKeyRequest{KeyId: &c.id})
	return err
}

// listKeys looks through all pages for the key.
func (c *cell) listKeys() error {
	for page := int32(1); ; page++ {
		out, err := c.service.ListKeys(&sdk.ListKeysRequest{PageNumber: &page, PageSize: tea.Int32(100)})
		if err != nil {
			return err
		}
		for _, k := range out.Body.Keys.Key {
			if tea.StringValue(k.KeyId) == c.id {
				return nil
			}
		}
		if len(out.Body.Keys.Key) == 0 {
			c.t.Error("ListKeys leaves the key out")
			return nil
		}
	}
}

func (c *cell) updateKeyDescription() error {
	_, err := c.admin.UpdateKeyDescription(&sdk.UpdateKeyDescriptionRequest{KeyId: &c.id, Description: tea.String("new")})
	return err
}

func (c *cell) enableKey() error {
	_, err := c.admin.EnableKey(&sdk.EnableKeyRequest{KeyId: &c.id})
	return err
}

func (c *cell) disableKey() error {
	_, err := c.admin.DisableKey(&sdk.DisableKeyRequest{KeyId: &c.id})
	return err
}

func (c *cell) scheduleKeyDeletion() error {
	_, err := c.admin.ScheduleKeyDeletion(&sdk.ScheduleKeyDeletionRequest{KeyId: &c.id, PendingWindowInDays: tea.Int32(7)})
	return err
}

func (c *cell) cancelKeyDeletion() error {
	_, err := c.admin.CancelKeyDeletion(&sdk.CancelKeyDeletionRequest{KeyId: &c.id})
	return err
}

// alias is one that nobody has, or that a key has.
func (c *cell) alias(of string) *string {
	const alias = "alias/table"
	c.kms.DeleteAlias(c.t.Context(), alias)
	if of != "" {
		// The key may be in a state that takes none: it had it before.
		if err := c.kms.SetAlias(c.t.Context(), alias, of); err != nil {
			c.must(c.kms.CancelKeyDeletion(c.t.Context(), of))
			c.must(c.kms.SetAlias(c.t.Context(), alias, of))
			_, err := c.kms.ScheduleKeyDeletion(c.t.Context(), of, 7, false)
			c.must(err)
		}
	}
	return tea.String(alias)
}

func (c *cell) createAlias() error {
	_, err := c.admin.CreateAlias(&sdk.CreateAliasRequest{AliasName: c.alias(""), KeyId: &c.id})
	return err
}

func (c *cell) updateAlias() error {
	_, err := c.admin.UpdateAlias(&sdk.UpdateAliasRequest{AliasName: c.alias(c.other), KeyId: &c.id})
	return err
}

func (c *cell) deleteAlias() error {
	_, err := c.admin.DeleteAlias(&sdk.DeleteAliasRequest{AliasName: c.alias(c.id)})
	return err
}

func (c *cell) listAliases() error {
	alias := c.alias(c.id)
	out, err := c.admin.ListAliases(&sdk.ListAliasesRequest{PageSize: tea.Int32(100)})
	if err == nil && (len(out.Body.Aliases.Alias) == 0 || tea.StringValue(out.Body.Aliases.Alias[0].AliasName) != *alias) {
		c.t.Errorf("aliases %v", out.Body.Aliases)
	}
	return err
}

func (c *cell) listAliasesByKeyID() error {
	_, err := c.admin.ListAliasesByKeyId(&sdk.ListAliasesByKeyIdRequest{KeyId: &c.id})
	return err
}

func (c *cell) createKeyVersion() error {
	_, err := c.admin.CreateKeyVersion(&sdk.CreateKeyVersionRequest{KeyId: &c.id})
	return err
}

func (c *cell) listKeyVersions() error {
	_, err := c.admin.ListKeyVersions(&sdk.ListKeyVersionsRequest{KeyId: &c.id})
	return err
}

func (c *cell) describeKeyVersion() error {
	_, err := c.admin.DescribeKeyVersion(&sdk.DescribeKeyVersionRequest{KeyId: &c.id, KeyVersionId: tea.String("1")})
	return err
}

func (c *cell) updateRotationPolicy() error {
	_, err := c.admin.UpdateRotationPolicy(&sdk.UpdateRotationPolicyRequest{KeyId: &c.id, EnableAutomaticRotation: tea.Bool(false)})
	return err
}

func (c *cell) setDeletionProtection() error {
	_, err := c.admin.SetDeletionProtection(&sdk.SetDeletionProtectionRequest{
		ProtectedResourceArn: tea.String("acs:kms:local:sealblk:key/" + c.id), EnableDeletionProtection: tea.Bool(true),
	})
	return err
}

func (c *cell) getParametersForImport() error {
	_, err := c.parameters()
	return err
}

func (c *cell) parameters() (*sdk.GetParametersForImportResponse, error) {
	return c.admin.GetParametersForImport(&sdk.GetParametersForImportRequest{
		KeyId: &c.id, WrappingAlgorithm: tea.String("RSAES_OAEP_SHA_256"), WrappingKeySpec: tea.String("RSA_2048"),
	})
}

// importKeyMaterial imports the material that the key had, wrapped as a client wraps it.
func (c *cell) importKeyMaterial() error {
	p, err := c.parameters()
	c.must(err)
	return c.importAs(p, c.material().Bytes())
}

func (c *cell) importAs(p *sdk.GetParametersForImportResponse, material []byte) error {
	der, err := base64.StdEncoding.DecodeString(tea.StringValue(p.Body.PublicKey))
	c.must(err)
	public, err := x509.ParsePKIXPublicKey(der)
	c.must(err)
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public.(*rsa.PublicKey), material, nil)
	c.must(err)
	_, err = c.admin.ImportKeyMaterial(&sdk.ImportKeyMaterialRequest{
		KeyId: &c.id, ImportToken: p.Body.ImportToken, KeyMaterialExpireUnix: tea.Int64(0),
		EncryptedKeyMaterial: tea.String(base64.StdEncoding.EncodeToString(wrapped)),
	})
	return err
}

func (c *cell) deleteKeyMaterial() error {
	_, err := c.admin.DeleteKeyMaterial(&sdk.DeleteKeyMaterialRequest{KeyId: &c.id})
	return err
}
