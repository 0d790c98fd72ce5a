package kmsserver

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/local"
)

// call is a request of a known principal.
type call struct {
	*Server
	ctx       context.Context
	kms       *local.KMS // as the principal
	principal string
	params    map[string]string
}

// action is what a name stands for.
type action struct {
	needs, takes []string
	do           func(*call) (any, error)
}

// none is the reply of an action that only succeeds.
type none struct{}

var actions = map[string]action{
	"CreateKey": {nil, []string{
		"Description", "EnableAutomaticRotation", "KeySpec", "KeyUsage", "Origin", "ProtectionLevel", "RotationInterval",
	}, (*call).createKey},
	"DescribeKey":           {[]string{"KeyId"}, nil, (*call).describeKey},
	"ListKeys":              {nil, []string{"Filters", "PageNumber", "PageSize"}, (*call).listKeys},
	"EnableKey":             {[]string{"KeyId"}, nil, (*call).enableKey},
	"DisableKey":            {[]string{"KeyId"}, nil, (*call).disableKey},
	"ScheduleKeyDeletion":   {[]string{"KeyId", "PendingWindowInDays"}, nil, (*call).scheduleKeyDeletion},
	"CancelKeyDeletion":     {[]string{"KeyId"}, nil, (*call).cancelKeyDeletion},
	"UpdateKeyDescription":  {[]string{"KeyId", "Description"}, nil, (*call).updateKeyDescription},
	"SetDeletionProtection": {[]string{"ProtectedResourceArn", "EnableDeletionProtection"}, []string{"DeletionProtectionDescription"}, (*call).setDeletionProtection},

	"CreateKeyVersion":     {[]string{"KeyId"}, nil, (*call).createKeyVersion},
	"ListKeyVersions":      {[]string{"KeyId"}, []string{"PageNumber", "PageSize"}, (*call).listKeyVersions},
	"DescribeKeyVersion":   {[]string{"KeyId", "KeyVersionId"}, nil, (*call).describeKeyVersion},
	"UpdateRotationPolicy": {[]string{"KeyId", "EnableAutomaticRotation"}, []string{"RotationInterval"}, (*call).updateRotationPolicy},

	"CreateAlias":                     {[]string{"AliasName", "KeyId"}, nil, (*call).createAlias},
	"UpdateAlias":                     {[]string{"AliasName", "KeyId"}, nil, (*call).updateAlias},
	"DeleteAlias":                     {[]string{"AliasName"}, nil, (*call).deleteAlias},
	"ListAliases":                     {nil, []string{"PageNumber", "PageSize"}, (*call).listAliases},
	"ListAliasesByKeyId":              {[]string{"KeyId"}, []string{"PageNumber", "PageSize"}, (*call).listAliasesByKeyID},
	"ReEncrypt":                       {[]string{"CiphertextBlob", "DestinationKeyId"}, []string{"SourceKeyId", "SourceKeyVersionId", "SourceEncryptionContext", "DestinationEncryptionContext", "DryRun"}, (*call).reEncrypt},
	"Encrypt":                         {[]string{"KeyId", "Plaintext"}, []string{"EncryptionContext", "DryRun"}, (*call).encrypt},
	"Decrypt":                         {[]string{"CiphertextBlob"}, []string{"EncryptionContext", "DryRun"}, (*call).decrypt},
	"GenerateDataKey":                 {[]string{"KeyId"}, []string{"KeySpec", "NumberOfBytes", "EncryptionContext", "DryRun"}, (*call).generateDataKey},
	"GenerateDataKeyWithoutPlaintext": {[]string{"KeyId"}, []string{"KeySpec", "NumberOfBytes", "EncryptionContext", "DryRun"}, (*call).generateDataKeyWithoutPlaintext},

	"GetParametersForImport": {[]string{"KeyId", "WrappingAlgorithm", "WrappingKeySpec"}, nil, (*call).getParametersForImport},
	"ImportKeyMaterial":      {[]string{"KeyId", "EncryptedKeyMaterial", "ImportToken"}, []string{"KeyMaterialExpireUnix"}, (*call).importKeyMaterial},
	"DeleteKeyMaterial":      {[]string{"KeyId"}, nil, (*call).deleteKeyMaterial},
}

// check refuses parameters that are missing or unknown.
func (a *action) check(params map[string]string) error {
	for _, name := range a.needs {
		if _, there := params[name]; !there {
			return faultf(codeMissing, "the parameter %s is missing", name)
		}
	}
	for name := range params {
		if !slices.Contains(a.needs, name) && !slices.Contains(a.takes, name) {
			return faultf(codeInvalid, "this server does not know the parameter %s of this action", name)
		}
	}
	if dry := params["DryRun"]; dry != "" && dry != "false" {
		return faultf(codeInvalid, "this server has no dry runs: leave DryRun out")
	}
	return nil
}

// key is the key that a parameter names: an id, an alias or an ARN.
func (c *call) key(name string) (string, error) {
	key := c.params[name]
	if key == "" {
		return "", faultf(codeMissing, "the parameter %s is empty", name)
	}
	return strings.TrimPrefix(fromARN(key), "key/"), nil
}

// fromARN is what an ARN, "acs:kms:REGION:ACCOUNT:key/ID", names.
func fromARN(s string) string {
	if parts := strings.SplitN(s, ":", 5); len(parts) == 5 && parts[0] == "acs" && parts[1] == "kms" {
		return parts[4]
	}
	return s
}

func (c *call) arn(resource string) string { return "acs:kms:" + c.region + ":sealblk:" + resource }

// boolean is false if the parameter is not there.
func (c *call) boolean(name string) (bool, error) {
	switch c.params[name] {
	case "true":
		return true, nil
	case "false", "":
		return false, nil
	}
	return false, faultf(codeInvalid, "the parameter %s is true or false", name)
}

func (c *call) number(name string, otherwise, least, most int) (int, error) {
	text, there := c.params[name]
	if !there {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, faultf(codeInvalid, "the parameter %s is a number from %d to %d", name, least, most)
	}
	return n, nil
}

// context is an encryption context: a JSON object of strings.
func (c *call) context(name string) (keymgr.Context, error) {
	text := c.params[name]
	if text == "" {
		return nil, nil
	}
	return parseContext(text, name)
}

func parseContext(text, name string) (keymgr.Context, error) {
	wrong := faultf(codeInvalid, "the parameter %s is a JSON object of strings, in which no name is there twice", name)
	d := json.NewDecoder(strings.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, wrong
	}
	ec := keymgr.Context{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, wrong
		}
		entry, _ := key.(string) // names are strings
		value, err := d.Token()
		text, isText := value.(string)
		if _, twice := ec[entry]; err != nil || !isText || twice {
			return nil, wrong
		}
		ec[entry] = text
	}
	if _, err := d.Token(); err != nil {
		return nil, wrong
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, wrong
	}
	return ec, nil
}

// blob is a Base64 parameter.
func (c *call) blob(name string) ([]byte, error) {
	data, err := base64.StdEncoding.Strict().DecodeString(c.params[name])
	if err != nil || len(data) == 0 || bytes.ContainsAny([]byte(c.params[name]), "\r\n") {
		return nil, faultf(codeInvalid, "the parameter %s is not Base64", name)
	}
	return data, nil
}

// interval is a number of days, as "30d" or "604800s".
func (c *call) interval(name string) (days int, err error) {
	text := c.params[name]
	wrong := faultf(codeInvalid, "the parameter %s is a number of whole days, as 30d or 604800s", name)
	if text == "" {
		return 0, faultf(codeMissing, "the parameter %s is missing", name)
	}
	n, err := strconv.Atoi(text[:len(text)-1])
	if err != nil || n <= 0 || n > 1<<30 {
		return 0, wrong
	}
	per := map[byte]int{'d': 1, 'h': 24, 'm': 24 * 60, 's': 24 * 60 * 60}[text[len(text)-1]]
	if per == 0 || n%per != 0 {
		return 0, wrong
	}
	return n / per, nil
}

// page is a part of a list.
type page struct {
	PageNumber int
	PageSize   int
	TotalCount int
}

// cut takes the page that was asked for out of a list.
func cut[T any](c *call, list []T) (page, []T, error) {
	number, err := c.number("PageNumber", 1, 1, 1<<20)
	if err != nil {
		return page{}, nil, err
	}
	size, err := c.number("PageSize", 10, 1, 100)
	if err != nil {
		return page{}, nil, err
	}
	p := page{number, size, len(list)}
	from := min((number-1)*size, len(list))
	return p, list[from:min(from+size, len(list))], nil
}

// timestamp is a time as the service writes it.
func timestamp(t time.Time) string { return t.UTC().Format(timeForm) }

func timestampOf(t *time.Time) string {
	if t == nil {
		return ""
	}
	return timestamp(*t)
}
