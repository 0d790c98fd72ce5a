package kmsserver

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/alibabacloud-go/kms-20160120/v3/client"
	"github.com/alibabacloud-go/tea/tea"

	"sealblk/keymgr"
	"sealblk/keymgr/local"
)

func TestLifeOfAKey(t *testing.T) {
	s := newSite(t)
	c := s.client(local.Operator)
	made, err := c.CreateKey(&sdk.CreateKeyRequest{
		Description: tea.String("für die Kasse: a+b&c=d*~"), EnableAutomaticRotation: tea.Bool(true), RotationInterval: tea.String("30d"),
		KeySpec: tea.String("Aliyun_AES_256"), KeyUsage: tea.String("ENCRYPT/DECRYPT"), Origin: tea.String("Aliyun_KMS"),
	})
	s.must(err)
	m := made.Body.KeyMetadata
	id := tea.StringValue(m.KeyId)
	if tea.StringValue(made.Body.RequestId) == "" || tea.StringValue(m.KeyState) != "Enabled" || tea.StringValue(m.Arn) != "acs:kms:local:sealblk:key/"+id {
		t.Errorf("created %v", made.Body)
	}
	_, err = c.CreateAlias(&sdk.CreateAliasRequest{AliasName: tea.String("alias/till"), KeyId: &id})
	s.must(err)
	for _, name := range []string{id, "alias/till", "acs:kms:local:1234:key/" + id, "acs:kms:local:1234:alias/till"} {
		out, err := c.DescribeKey(&sdk.DescribeKeyRequest{KeyId: &name})
		s.must(err)
		m := out.Body.KeyMetadata
		if tea.StringValue(m.KeyId) != id || tea.StringValue(m.Description) != "für die Kasse: a+b&c=d*~" ||
			tea.StringValue(m.AutomaticRotation) != "Enabled" || tea.StringValue(m.RotationInterval) != "2592000s" ||
			tea.StringValue(m.DeletionProtection) != "Disabled" || tea.StringValue(m.PrimaryKeyVersion) != "1" || tea.StringValue(m.NextRotationDate) == "" {
			t.Errorf("%s: %v", name, m)
		}
	}
	v, err := c.CreateKeyVersion(&sdk.CreateKeyVersionRequest{KeyId: tea.String("alias/till")})
	s.must(err)
	if tea.StringValue(v.Body.KeyVersion.KeyVersionId) != "2" || tea.StringValue(v.Body.KeyVersion.KeyId) != id {
		t.Errorf("new version %v", v.Body)
	}
	versions, err := c.ListKeyVersions(&sdk.ListKeyVersionsRequest{KeyId: &id, PageSize: tea.Int32(1), PageNumber: tea.Int32(2)})
	s.must(err)
	list := versions.Body.KeyVersions.KeyVersion
	if tea.Int32Value(versions.Body.TotalCount) != 2 || len(list) != 1 || tea.StringValue(list[0].KeyVersionId) != "2" {
		t.Errorf("second page %v", versions.Body)
	}
	_, err = c.DescribeKeyVersion(&sdk.DescribeKeyVersionRequest{KeyId: &id, KeyVersionId: tea.String("3")})
	wantCode(t, "no such version", err, "Forbidden.KeyVersionNotFound", 404)
	_, err = c.UpdateRotationPolicy(&sdk.UpdateRotationPolicyRequest{KeyId: &id, EnableAutomaticRotation: tea.Bool(true), RotationInterval: tea.String("604800s")})
	s.must(err)
	out, err := c.DescribeKey(&sdk.DescribeKeyRequest{KeyId: &id})
	s.must(err)
	if m := out.Body.KeyMetadata; tea.StringValue(m.RotationInterval) != "604800s" || tea.StringValue(m.LastRotationDate) == "" {
		t.Errorf("after the rotation: %v", m)
	}
}

func TestDeletion(t *testing.T) {
	s := newSite(t)
	c := s.client(local.Operator)
	id, _ := s.newKey(keymgr.Enabled, false)
	arn := "acs:kms:local:sealblk:key/" + id
	protect := func(on bool) {
		_, err := c.SetDeletionProtection(&sdk.SetDeletionProtectionRequest{ProtectedResourceArn: &arn, EnableDeletionProtection: &on})
		s.must(err)
	}
	schedule := func(days int32) error {
		_, err := c.ScheduleKeyDeletion(&sdk.ScheduleKeyDeletionRequest{KeyId: &id, PendingWindowInDays: &days})
		return err
	}
	protect(true)
	e := wantCode(t, "protected", schedule(7), "Rejected.DeletionProtection", 409)
	if !strings.Contains(tea.StringValue(e.Message), "SetDeletionProtection") {
		t.Errorf("no way out: %q", tea.StringValue(e.Message))
	}
	protect(false)
	wantCode(t, "six days", schedule(6), "InvalidParameter", 400)
	wantCode(t, "367 days", schedule(367), "InvalidParameter", 400)
	s.must(schedule(366))
	out, err := c.DescribeKey(&sdk.DescribeKeyRequest{KeyId: &id})
	s.must(err)
	if when := tea.StringValue(out.Body.KeyMetadata.DeleteDate); !strings.HasPrefix(when, time.Now().UTC().AddDate(0, 0, 366).Format("2006-01-02T")) {
		t.Errorf("deletion on %q", when)
	}
	_, err = c.CancelKeyDeletion(&sdk.CancelKeyDeletionRequest{KeyId: &id})
	s.must(err)
}

func TestListsHavePages(t *testing.T) {
	s := newSite(t)
	c := s.client(local.Operator)
	var ids []string
	for i := range 12 {
		id, _ := s.newKey(keymgr.Enabled, false)
		ids = append(ids, id)
		s.must(s.kms.SetAlias(t.Context(), fmt.Sprintf("alias/%02d", i), id))
	}
	s.must(s.kms.DisableKey(t.Context(), ids[3]))
	var seen []string
	for page := int32(1); page <= 3; page++ {
		out, err := c.ListKeys(&sdk.ListKeysRequest{PageNumber: &page})
		s.must(err)
		if tea.Int32Value(out.Body.TotalCount) != 12 || tea.Int32Value(out.Body.PageSize) != 10 || tea.Int32Value(out.Body.PageNumber) != page {
			t.Errorf("page %v", out.Body)
		}
		for _, k := range out.Body.Keys.Key {
			seen = append(seen, tea.StringValue(k.KeyId))
		}
	}
	slices.Sort(seen)
	slices.Sort(ids)
	if !slices.Equal(seen, ids) {
		t.Errorf("pages hold %v, want %v", seen, ids)
	}
	for filter, want := range map[string]int32{
		`[{"Key":"KeyState","Values":["Disabled"]}]`:                                              1,
		`[{"Key":"KeyState","Values":["Enabled"]},{"Key":"KeyState","Values":["Disabled"]}]`:      12,
		`[{"Key":"KeyState","Values":["Enabled"]},{"Key":"CreatorType","Values":["Service"]}]`:    0,
		`[{"Key":"KeySpec","Values":["Aliyun_AES_256"]},{"Key":"ProtectionLevel","Values":[]}]`:   12,
		`[{"Key":"ProtectionLevel","Values":["HSM"]}]`:                                            0,
		`[{"Key":"KeyUsage","Values":["ENCRYPT/DECRYPT"]}, {"Key":"KeyState","Values":["None"]}]`: 0,
	} {
		out, err := c.ListKeys(&sdk.ListKeysRequest{Filters: &filter})
		if err != nil || tea.Int32Value(out.Body.TotalCount) != want {
			t.Errorf("%s: %v, %v, want %d", filter, out, err, want)
		}
	}
	aliases, err := c.ListAliases(&sdk.ListAliasesRequest{PageNumber: tea.Int32(2)})
	s.must(err)
	if list := aliases.Body.Aliases.Alias; len(list) != 2 || tea.StringValue(list[1].AliasName) != "alias/11" {
		t.Errorf("second page of aliases: %v", aliases.Body)
	}
	for _, bad := range []*sdk.ListKeysRequest{
		{PageSize: tea.Int32(101)}, {PageSize: tea.Int32(0)}, {PageNumber: tea.Int32(0)},
		{Filters: tea.String("x")}, {Filters: tea.String(`[{"Key":"Colour","Values":["red"]}]`)},
	} {
		_, err := c.ListKeys(bad)
		wantCode(t, fmt.Sprint(bad), err, "InvalidParameter", 400)
	}
}

func TestDataKeysOverTheSDK(t *testing.T) {
	s := newSite(t)
	c := s.client(local.DiskService)
	id, _ := s.newKey(keymgr.Enabled, false)
	ec := keymgr.Context{keymgr.ContextDisk: "1", "note": `ü "quoted", <b>&amp;</b> + %20 *~`}
	for request, size := range map[*sdk.GenerateDataKeyRequest]int{
		{KeyId: &id}: 32, {KeyId: &id, KeySpec: tea.String("AES_128")}: 16, {KeyId: &id, NumberOfBytes: tea.Int32(64)}: 64,
		{KeyId: &id, KeySpec: tea.String("AES_256"), NumberOfBytes: tea.Int32(1024)}: 1024,
	} {
		request.EncryptionContext = contextOf(ec)
		made, err := c.GenerateDataKey(request)
		s.must(err)
		key, err := base64.StdEncoding.DecodeString(tea.StringValue(made.Body.Plaintext))
		if err != nil || len(key) != size || tea.StringValue(made.Body.KeyId) != id || tea.StringValue(made.Body.KeyVersionId) != "1" {
			t.Errorf("%d bytes, want %d: %v", len(key), size, err)
		}
		opened, err := c.Decrypt(&sdk.DecryptRequest{CiphertextBlob: made.Body.CiphertextBlob, EncryptionContext: contextOf(ec)})
		s.must(err)
		if tea.StringValue(opened.Body.Plaintext) != tea.StringValue(made.Body.Plaintext) || tea.StringValue(opened.Body.KeyId) != id {
			t.Error("decrypted to another data key")
		}
		_, err = c.Decrypt(&sdk.DecryptRequest{CiphertextBlob: made.Body.CiphertextBlob, EncryptionContext: contextOf(disk1)})
		wantCode(t, "another disk", err, "InvalidEncryptionContext", 400)
	}
	for _, bad := range []*sdk.GenerateDataKeyRequest{
		{KeyId: &id, NumberOfBytes: tea.Int32(0)}, {KeyId: &id, NumberOfBytes: tea.Int32(1025)},
		{KeyId: &id, KeySpec: tea.String("AES_512")}, {KeyId: &id, EncryptionContext: map[string]any{"a": 1}},
		{KeyId: &id, DryRun: tea.String("true")},
	} {
		_, err := c.GenerateDataKey(bad)
		wantCode(t, fmt.Sprint(bad), err, "InvalidParameter", 400)
	}
}

// TestTheLibraryOpensWhatTheServerMade and the other way round: it is one KMS.
func TestTheLibraryOpensWhatTheServerMade(t *testing.T) {
	s := newSite(t)
	c := s.client(local.DiskService)
	id, w := s.newKey(keymgr.Enabled, false)
	made, err := c.GenerateDataKey(&sdk.GenerateDataKeyRequest{KeyId: &id, NumberOfBytes: tea.Int32(64), EncryptionContext: contextOf(disk1)})
	s.must(err)
	blob, err := base64.StdEncoding.DecodeString(tea.StringValue(made.Body.CiphertextBlob))
	s.must(err)
	dk, err := s.kms.As(local.DiskService).Decrypt(t.Context(), keymgr.WrappedKey{URI: "local:" + id, Version: "1", Blob: blob}, disk1)
	s.must(err)
	defer dk.Destroy()
	if base64.StdEncoding.EncodeToString(dk.Bytes()) != tea.StringValue(made.Body.Plaintext) {
		t.Error("the library decrypts to another data key")
	}
	opened, err := c.Decrypt(&sdk.DecryptRequest{CiphertextBlob: tea.String(text(w)), EncryptionContext: contextOf(disk1)})
	if err != nil || len(tea.StringValue(opened.Body.Plaintext)) != 88 {
		t.Errorf("the server decrypts %v, %v", opened, err)
	}
}

func TestEncryptOverTheSDK(t *testing.T) {
	s := newSite(t)
	c := s.client(local.DiskService)
	id, _ := s.newKey(keymgr.Enabled, false)
	for _, plain := range [][]byte{[]byte("x"), bytes.Repeat([]byte{0xff, 0xfb}, local.MaxPlaintext/2)} {
		sent := base64.StdEncoding.EncodeToString(plain)
		out, err := c.Encrypt(&sdk.EncryptRequest{KeyId: &id, Plaintext: &sent, EncryptionContext: contextOf(disk1)})
		s.must(err)
		opened, err := c.Decrypt(&sdk.DecryptRequest{CiphertextBlob: out.Body.CiphertextBlob, EncryptionContext: contextOf(disk1)})
		if err != nil || tea.StringValue(opened.Body.Plaintext) != sent {
			t.Errorf("%d bytes: decrypted to something else, %v", len(plain), err)
		}
	}
	for _, bad := range []string{"", "a?b", "SGVsbG8", "SGVs\nbG8=", base64.StdEncoding.EncodeToString(make([]byte, local.MaxPlaintext+1))} {
		_, err := c.Encrypt(&sdk.EncryptRequest{KeyId: &id, Plaintext: &bad})
		wantCode(t, fmt.Sprintf("%.10q", bad), err, "InvalidParameter", 400)
	}
}

func TestReEncryptOverTheSDK(t *testing.T) {
	s := newSite(t)
	c := s.client(local.DiskService)
	id, w := s.newKey(keymgr.Enabled, false)
	other, _ := s.newKey(keymgr.Enabled, false)
	request := func() *sdk.ReEncryptRequest {
		return &sdk.ReEncryptRequest{
			CiphertextBlob: tea.String(text(w)), DestinationKeyId: &other,
			SourceEncryptionContext: contextOf(disk1), DestinationEncryptionContext: contextOf(disk1),
		}
	}
	before, err := c.Decrypt(&sdk.DecryptRequest{CiphertextBlob: tea.String(text(w)), EncryptionContext: contextOf(disk1)})
	s.must(err)
	named := request()
	named.SourceKeyId, named.SourceKeyVersionId = &id, tea.String("1")
	moved, err := c.ReEncrypt(named)
	s.must(err)
	after, err := c.Decrypt(&sdk.DecryptRequest{CiphertextBlob: moved.Body.CiphertextBlob, EncryptionContext: contextOf(disk1)})
	s.must(err)
	if tea.StringValue(after.Body.KeyId) != other || tea.StringValue(after.Body.Plaintext) != tea.StringValue(before.Body.Plaintext) {
		t.Errorf("moved to %s", tea.StringValue(after.Body.KeyId))
	}
	bad := request()
	bad.DestinationEncryptionContext = contextOf(keymgr.Context{keymgr.ContextDisk: "2"})
	_, err = c.ReEncrypt(bad)
	wantCode(t, "to another disk", err, "UnsupportedOperation", 400)
	bad = request()
	bad.SourceKeyId = &other
	_, err = c.ReEncrypt(bad)
	wantCode(t, "of another key", err, "InvalidParameter", 400)
}

func TestImportOverTheSDK(t *testing.T) {
	s := newSite(t)
	admin := s.client(local.Operator)
	made, err := admin.CreateKey(&sdk.CreateKeyRequest{Origin: tea.String("EXTERNAL")})
	s.must(err)
	c := &cell{site: s, admin: admin, id: tea.StringValue(made.Body.KeyMetadata.KeyId)}
	if m := made.Body.KeyMetadata; tea.StringValue(m.KeyState) != "PendingImport" || tea.StringValue(m.Origin) != "EXTERNAL" {
		t.Errorf("created %v", m)
	}
	p, err := c.parameters()
	s.must(err)
	wantCode(t, "31 bytes", c.importAs(p, make([]byte, 31)), "InvalidParameter", 400)
	s.must(c.importAs(p, s.material().Bytes()))
	wantCode(t, "the token again", c.importAs(p, s.material().Bytes()), "InvalidImportToken", 400)
	s.must(c.deleteKeyMaterial())
	p, err = c.parameters()
	s.must(err)
	wantCode(t, "other material", c.importAs(p, make([]byte, 32)), "InvalidKeyMaterial", 400)
	s.must(c.importAs(p, s.material().Bytes()))

	here, _ := s.newKey(keymgr.Enabled, false)
	for _, bad := range []struct {
		key, algorithm, code string
		status               int
	}{
		{here, "RSAES_OAEP_SHA_256", "Unsupported.Origin", 400}, {c.id, "RSAES_PKCS1_V1_5", "InvalidParameter", 400},
		{"key-" + strings.Repeat("0", 32), "RSAES_OAEP_SHA_1", "Forbidden.KeyNotFound", 404},
	} {
		_, err = admin.GetParametersForImport(&sdk.GetParametersForImportRequest{
			KeyId: &bad.key, WrappingAlgorithm: &bad.algorithm, WrappingKeySpec: tea.String("RSA_2048"),
		})
		wantCode(t, bad.key+" "+bad.algorithm, err, bad.code, bad.status)
	}
	junk := base64.StdEncoding.EncodeToString(make([]byte, 256))
	p, err = c.parameters()
	s.must(err)
	_, err = admin.ImportKeyMaterial(&sdk.ImportKeyMaterialRequest{
		KeyId: &c.id, ImportToken: p.Body.ImportToken, EncryptedKeyMaterial: &junk, KeyMaterialExpireUnix: tea.Int64(0),
	})
	wantCode(t, "not wrapped", err, "InvalidKeyMaterial", 400)
}

func TestPreparedImportsEnd(t *testing.T) {
	m, now := newImports(), time.Now()
	for i := range maxImports + 1 {
		m.add(fmt.Sprint(i), prepared{key: "k", expires: now.Add(time.Duration(i+1) * time.Minute)})
	}
	if len(m.list) != maxImports {
		t.Errorf("%d are kept", len(m.list))
	}
	for token, code := range map[string]string{"0": codeToken, "none": codeToken, "1": codeTokenOld} {
		if _, err := m.take(token, "k", now.Add(2*time.Minute)); faultOf(err).code != code {
			t.Errorf("%s: %v", token, err)
		}
	}
	if _, err := m.take("2", "another", now); faultOf(err).code != codeToken {
		t.Errorf("of another key: %v", err)
	}
	if _, err := m.take("2", "k", now); err != nil {
		t.Error(err)
	}
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	s := newSite(t)
	admin, service := s.client(local.Operator), s.client(local.DiskService)
	_, early := admin.DescribeKey(&sdk.DescribeKeyRequest{KeyId: tea.String("alias/none")})
	if m := tea.StringValue(wantCode(t, "before the first key", early, "Forbidden.KeyNotFound", 404).Message); !strings.Contains(m, "CreateKey") || strings.Contains(m, "/shm") {
		t.Errorf("message %q", m)
	}
	mine, err := admin.CreateKey(&sdk.CreateKeyRequest{})
	s.must(err)
	id := mine.Body.KeyMetadata.KeyId
	_, err = service.GenerateDataKey(&sdk.GenerateDataKeyRequest{KeyId: id})
	e := wantCode(t, "not authorised", err, "Forbidden.NoPermission", 403)
	if m := tea.StringValue(e.Message); !strings.Contains(m, "sealblk key authorize "+*id+" --principal disk-service --allow generate,decrypt") {
		t.Errorf("message %q", m)
	}
	_, err = service.CreateKey(&sdk.CreateKeyRequest{})
	wantCode(t, "creation by a service", err, "Forbidden.NoPermission", 403)
	_, err = admin.DescribeKey(&sdk.DescribeKeyRequest{KeyId: tea.String("alias/none")})
	wantCode(t, "no alias", err, "Forbidden.AliasNotFound", 404)
	_, err = admin.CreateAlias(&sdk.CreateAliasRequest{AliasName: tea.String("alias/a"), KeyId: id})
	s.must(err)
	_, err = admin.CreateAlias(&sdk.CreateAliasRequest{AliasName: tea.String("alias/a"), KeyId: id})
	wantCode(t, "alias twice", err, "AliasAlreadyExists", 400)
	_, err = admin.UpdateAlias(&sdk.UpdateAliasRequest{AliasName: tea.String("alias/b"), KeyId: id})
	wantCode(t, "no such alias", err, "Forbidden.AliasNotFound", 404)
	_, err = service.GenerateDataKey(&sdk.GenerateDataKeyRequest{KeyId: tea.String("alias/acs/ecs")}) // makes the service key
	s.must(err)
	_, err = admin.DisableKey(&sdk.DisableKeyRequest{KeyId: tea.String("alias/acs/ecs")})
	wantCode(t, "service key", err, "UnsupportedOperation", 400)
	_, err = service.Decrypt(&sdk.DecryptRequest{CiphertextBlob: tea.String("AAAA")})
	wantCode(t, "no blob", err, "InvalidCiphertext", 400)
	for _, bad := range []*sdk.CreateKeyRequest{
		{KeySpec: tea.String("RSA_2048")}, {ProtectionLevel: tea.String("HSM")}, {Origin: tea.String("Moon")},
		{EnableAutomaticRotation: tea.Bool(true), RotationInterval: tea.String("36h")}, {Policy: tea.String("{}")},
		{EnableAutomaticRotation: tea.Bool(true), RotationInterval: tea.String("d")},
	} {
		_, err = admin.CreateKey(bad)
		wantCode(t, fmt.Sprint(bad), err, "InvalidParameter", 400)
	}
	_, err = admin.CreateKey(&sdk.CreateKeyRequest{EnableAutomaticRotation: tea.Bool(true)})
	wantCode(t, "no interval", err, "MissingParameter", 400)
	_, err = admin.CreateSecret(&sdk.CreateSecretRequest{SecretName: tea.String("s"), SecretData: tea.String("x"), VersionId: tea.String("1")})
	wantCode(t, "another action", err, "InvalidAction.NotFound", 404)
}

// TestAuditHasThePrincipal of each call.
func TestAuditHasThePrincipal(t *testing.T) {
	s := newSite(t)
	id, w := s.newKey(keymgr.Enabled, false)
	s.newAccessKey("backup-host")
	_, err := s.client("backup-host").Decrypt(&sdk.DecryptRequest{CiphertextBlob: tea.String(text(w)), EncryptionContext: contextOf(disk1)})
	wantCode(t, "a principal without permission", err, "Forbidden.NoPermission", 403)
	_, err = s.client(local.Operator).UpdateKeyDescription(&sdk.UpdateKeyDescriptionRequest{KeyId: &id, Description: tea.String("d")})
	s.must(err)
	var got []string
	s.must(s.kms.AuditLog(t.Context(), func(e local.Entry) {
		if e.Key == id {
			got = append(got, e.Principal+" "+e.Operation+" "+e.Result)
		}
	}))
	for _, want := range []string{"backup-host Decrypt Forbidden.NoPermission", "operator UpdateKeyDescription ok"} {
		if !slices.Contains(got, want) {
			t.Errorf("the audit log has %q, not %q", got, want)
		}
	}
}

// TestStopWaitsForTheLog: a server that is stopped has logged each request that it
// answered, those too whose connection it took from net/http.
func TestStopWaitsForTheLog(t *testing.T) {
	s := newSite(t)
	id, _ := s.newKey(keymgr.Enabled, false)
	writing, written := make(chan struct{}), make(chan struct{})
	slow := func() {
		close(writing)
		<-written
	}
	s.log.slow.Store(&slow)
	_, err := s.client(local.DiskService).GenerateDataKey(&sdk.GenerateDataKeyRequest{KeyId: &id, EncryptionContext: contextOf(disk1)})
	s.must(err)
	<-writing
	time.AfterFunc(100*time.Millisecond, func() { close(written) }) // time to stop without it
	s.stop()
	if log := s.log.String(); !strings.Contains(log, "action=GenerateDataKey") {
		t.Errorf("stopped before the line was written; the log:\n%s", log)
	}
}

func TestNothingSecretIsLogged(t *testing.T) {
	s := newSite(t)
	c := s.client(local.DiskService)
	id, _ := s.newKey(keymgr.Enabled, false)
	made, err := c.GenerateDataKey(&sdk.GenerateDataKeyRequest{KeyId: &id, EncryptionContext: contextOf(disk1)})
	s.must(err)
	_, err = c.Encrypt(&sdk.EncryptRequest{KeyId: &id, Plaintext: tea.String("SGVsbG8gU2VjcmV0")})
	s.must(err)
	s.stop() // the last line is written behind the reply
	log := s.log.String()
	for _, word := range []string{
		"SGVsbG8gU2VjcmV0", tea.StringValue(made.Body.Plaintext), tea.StringValue(made.Body.CiphertextBlob)[:20],
		s.keys[local.DiskService].secret, "Signature", "NumberOfBytes", "sealblk:disk",
	} {
		if strings.Contains(log, word) {
			t.Errorf("the log has %q", word)
		}
	}
	if !strings.Contains(log, "action=GenerateDataKey principal=disk-service result=ok") {
		t.Errorf("the log does not tell what was done:\n%s", log)
	}
}
