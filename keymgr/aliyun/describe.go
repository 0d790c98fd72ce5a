package aliyun

import (
	"strconv"
	"strings"
	"time"

	sdk "github.com/alibabacloud-go/kms-20160120/v3/client"
	"github.com/alibabacloud-go/tea/tea"

	"sealblk/keymgr"
)

// states of the service that have one here; another is unusable by all that is known.
var states = map[string]keymgr.State{
	"Enabled":         keymgr.Enabled,
	"Disabled":        keymgr.Disabled,
	"PendingDeletion": keymgr.PendingDeletion,
	"PendingImport":   keymgr.PendingImport,
}

// info describes a key. How many versions it has, and its aliases, take calls of their
// own, which nobody needs here.
func (n name) info(m *sdk.DescribeKeyResponseBodyKeyMetadata) (keymgr.KeyInfo, error) {
	n.key = tea.StringValue(m.KeyId)
	if !keyForm.MatchString(n.key) {
		return keymgr.KeyInfo{}, oddReply(n, "the reply names no key")
	}
	state, known := states[tea.StringValue(m.KeyState)]
	if !known {
		state = keymgr.State(tea.StringValue(m.KeyState))
	}
	return keymgr.KeyInfo{
		URI: n.String(), KeyID: n.key, Region: n.region, Aliases: []string{}, State: state,
		Origin: origin(tea.StringValue(m.Origin)), Description: tea.StringValue(m.Description),
		PrimaryVersion: tea.StringValue(m.PrimaryKeyVersion), Created: date(m.CreationDate),
		DeletionDate: dateOf(m.DeleteDate), DeletionProtection: tea.StringValue(m.DeletionProtection) == "Enabled",
		RotationDays: days(tea.StringValue(m.RotationInterval)), NextRotation: dateOf(m.NextRotationDate),
		MaterialExpires: dateOf(m.MaterialExpireTime),
	}, nil
}

func origin(s string) string {
	switch s {
	case "Aliyun_KMS":
		return "kms"
	case "EXTERNAL":
		return "external"
	}
	return s
}

// date is the zero time for what is none.
func date(s *string) time.Time {
	t, err := time.Parse(time.RFC3339, tea.StringValue(s))
	if err != nil {
		return time.Time{}
	}
	return t
}

func dateOf(s *string) *time.Time {
	t := date(s)
	if t.IsZero() {
		return nil
	}
	return &t
}

// days is an interval as the service writes it, "604800s".
func days(s string) int {
	n, err := strconv.Atoi(strings.TrimSuffix(s, "s"))
	if err != nil {
		return 0
	}
	return n / (24 * 60 * 60)
}
