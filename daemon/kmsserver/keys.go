package kmsserver

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/local"
)

// What the keys of this KMS all are.
const (
	keySpec     = "Aliyun_AES_256"
	keyUsage    = "ENCRYPT/DECRYPT"
	protection  = "SOFTWARE"
	originHere  = "Aliyun_KMS"
	originThere = "EXTERNAL"
)

// keyMetadata describes a key.
type keyMetadata struct {
	Arn                string
	AutomaticRotation  string
	CreationDate       string
	Creator            string
	DeleteDate         string
	DeletionProtection string
	Description        string
	KeyId              string
	KeySpec            string
	KeyState           string
	KeyUsage           string
	LastRotationDate   string `json:",omitempty"`
	MaterialExpireTime string
	NextRotationDate   string `json:",omitempty"`
	Origin             string
	PrimaryKeyVersion  string
	ProtectionLevel    string
	RotationInterval   string `json:",omitempty"`
}

func (c *call) metadata(k keymgr.KeyInfo, versions []local.Version) keyMetadata {
	m := keyMetadata{
		Arn: c.arn("key/" + k.KeyID), AutomaticRotation: "Disabled", CreationDate: timestamp(k.Created), Creator: "sealblk",
		DeleteDate: timestampOf(k.DeletionDate), DeletionProtection: "Disabled", Description: k.Description, KeyId: k.KeyID,
		KeySpec: keySpec, KeyState: string(k.State), KeyUsage: keyUsage, MaterialExpireTime: timestampOf(k.MaterialExpires),
		NextRotationDate: timestampOf(k.NextRotation), Origin: originHere, PrimaryKeyVersion: k.PrimaryVersion,
		ProtectionLevel: protection,
	}
	if k.DeletionProtection {
		m.DeletionProtection = "Enabled"
	}
	if k.Origin == "external" {
		m.Origin = originThere
	}
	if k.RotationDays > 0 {
		m.AutomaticRotation, m.RotationInterval = "Enabled", fmt.Sprintf("%ds", k.RotationDays*24*60*60)
		if k.State != keymgr.Enabled {
			m.AutomaticRotation = "Suspended"
		}
	}
	if len(versions) > 1 {
		m.LastRotationDate = timestamp(versions[len(versions)-1].Created)
	}
	return m
}

type keyReply struct{ KeyMetadata keyMetadata }

func (c *call) createKey() (any, error) {
	o := local.CreateOptions{Description: c.params["Description"], External: c.params["Origin"] == originThere}
	for name, allowed := range map[string][]string{
		"KeySpec": {keySpec}, "KeyUsage": {keyUsage}, "Origin": {originHere, originThere}, "ProtectionLevel": {protection},
	} {
		if v := c.params[name]; v != "" && !slices.Contains(allowed, v) {
			return nil, faultf(codeInvalid, "the parameter %s is one of %v here", name, allowed)
		}
	}
	rotate, err := c.boolean("EnableAutomaticRotation")
	if err != nil {
		return nil, err
	}
	if rotate {
		if o.RotateDays, err = c.interval("RotationInterval"); err != nil {
			return nil, err
		}
	}
	k, err := c.kms.CreateKey(c.ctx, o)
	return keyReply{c.metadata(k, nil)}, err
}

func (c *call) describeKey() (any, error) {
	key, err := c.key("KeyId")
	if err != nil {
		return nil, err
	}
	k, err := c.kms.DescribeKey(c.ctx, key)
	if err != nil {
		return nil, err
	}
	var versions []local.Version
	if k.Versions > 1 { // one more call of the KMS, for the date
		if _, versions, err = c.kms.KeyVersions(c.ctx, k.KeyID); err != nil {
			return nil, err
		}
	}
	return keyReply{c.metadata(k, versions)}, nil
}

type keyItem struct{ KeyArn, KeyId string }

type keysReply struct {
	page
	Keys struct{ Key []keyItem }
}

func (c *call) listKeys() (any, error) {
	filters, err := parseFilters(c.params["Filters"])
	if err != nil {
		return nil, err
	}
	all, err := c.kms.ListKeys(c.ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(k keymgr.KeyInfo) bool { return !filters.match(k) })
	p, part, err := cut(c, all)
	reply := keysReply{page: p}
	reply.Keys.Key = []keyItem{}
	for _, k := range part {
		reply.Keys.Key = append(reply.Keys.Key, keyItem{c.arn("key/" + k.KeyID), k.KeyID})
	}
	return reply, err
}

// filters must all match; those of one name are one.
type filters []struct {
	Key    string
	Values []string
}

func parseFilters(text string) (filters, error) {
	if text == "" {
		return nil, nil
	}
	var list, joined filters
	if json.Unmarshal([]byte(text), &list) != nil || len(list) > 10 {
		return nil, faultf(codeInvalid, `the parameter Filters is at most 10 of [{"Key":"KeyState","Values":["Enabled"]}]`)
	}
	for _, f := range list {
		if !slices.Contains([]string{"KeyState", "KeySpec", "KeyUsage", "ProtectionLevel", "CreatorType"}, f.Key) {
			return nil, faultf(codeInvalid, "there is no filter %q", printable(f.Key))
		}
		if len(f.Values) == 0 {
			continue
		}
		if i := slices.IndexFunc(joined, func(j struct {
			Key    string
			Values []string
		}) bool {
			return j.Key == f.Key
		}); i >= 0 {
			joined[i].Values = append(joined[i].Values, f.Values...)
		} else {
			joined = append(joined, f)
		}
	}
	return joined, nil
}

func (list filters) match(k keymgr.KeyInfo) bool {
	creator := "User"
	if k.Service {
		creator = "Service"
	}
	is := map[string]string{
		"KeyState": string(k.State), "KeySpec": keySpec, "KeyUsage": keyUsage, "ProtectionLevel": protection, "CreatorType": creator,
	}
	for _, f := range list {
		if !slices.Contains(f.Values, is[f.Key]) {
			return false
		}
	}
	return true
}

// change does something to the key that the parameter KeyId names.
func (c *call) change(do func(key string) error) (any, error) {
	key, err := c.key("KeyId")
	if err != nil {
		return nil, err
	}
	return none{}, do(key)
}

func (c *call) enableKey() (any, error) {
	return c.change(func(key string) error { return c.kms.EnableKey(c.ctx, key) })
}

func (c *call) disableKey() (any, error) {
	return c.change(func(key string) error { return c.kms.DisableKey(c.ctx, key) })
}

func (c *call) scheduleKeyDeletion() (any, error) {
	days, err := c.number("PendingWindowInDays", 0, local.MinDeletionDays, local.MaxDeletionDays)
	if err != nil {
		return nil, err
	}
	return c.change(func(key string) error {
		_, err := c.kms.ScheduleKeyDeletion(c.ctx, key, days, false)
		return err
	})
}

func (c *call) cancelKeyDeletion() (any, error) {
	return c.change(func(key string) error { return c.kms.CancelKeyDeletion(c.ctx, key) })
}

func (c *call) updateKeyDescription() (any, error) {
	return c.change(func(key string) error { return c.kms.UpdateKeyDescription(c.ctx, key, c.params["Description"]) })
}

// setDeletionProtection has no place for DeletionProtectionDescription.
func (c *call) setDeletionProtection() (any, error) {
	on, err := c.boolean("EnableDeletionProtection")
	if err != nil {
		return nil, err
	}
	key, err := c.key("ProtectedResourceArn")
	if err != nil {
		return nil, err
	}
	return none{}, c.kms.SetDeletionProtection(c.ctx, key, on)
}

type versionItem struct{ CreationDate, KeyId, KeyVersionId string }

type versionReply struct{ KeyVersion versionItem }

func (c *call) createKeyVersion() (any, error) {
	key, err := c.key("KeyId")
	if err != nil {
		return nil, err
	}
	k, created, err := c.rotate(key)
	return versionReply{versionItem{timestamp(created), k.KeyID, k.PrimaryVersion}}, err
}

func (c *call) rotate(key string) (keymgr.KeyInfo, time.Time, error) {
	k, err := c.kms.RotateKey(c.ctx, key)
	if err != nil {
		return k, time.Time{}, err
	}
	v, err := c.version(k.KeyID, k.PrimaryVersion)
	return k, v.Created, err
}

// version finds a version of a key.
func (c *call) version(key, id string) (local.Version, error) {
	keyID, list, err := c.kms.KeyVersions(c.ctx, key)
	if err != nil {
		return local.Version{}, err
	}
	i := slices.IndexFunc(list, func(v local.Version) bool { return v.Version == id })
	if i < 0 {
		return local.Version{}, faultf(codeNoVersion, "%s has no version %q; call ListKeyVersions", keyID, printable(id))
	}
	return list[i], nil
}

type versionsReply struct {
	page
	KeyVersions struct{ KeyVersion []versionItem }
}

func (c *call) listKeyVersions() (any, error) {
	key, err := c.key("KeyId")
	if err != nil {
		return nil, err
	}
	id, all, err := c.kms.KeyVersions(c.ctx, key)
	if err != nil {
		return nil, err
	}
	p, part, err := cut(c, all)
	reply := versionsReply{page: p}
	reply.KeyVersions.KeyVersion = []versionItem{}
	for _, v := range part {
		reply.KeyVersions.KeyVersion = append(reply.KeyVersions.KeyVersion, versionItem{timestamp(v.Created), id, v.Version})
	}
	return reply, err
}

func (c *call) describeKeyVersion() (any, error) {
	key, err := c.key("KeyId")
	if err != nil {
		return nil, err
	}
	v, err := c.version(key, c.params["KeyVersionId"])
	if err != nil {
		return nil, err
	}
	k, err := c.kms.DescribeKey(c.ctx, key)
	return versionReply{versionItem{timestamp(v.Created), k.KeyID, v.Version}}, err
}

func (c *call) updateRotationPolicy() (any, error) {
	on, err := c.boolean("EnableAutomaticRotation")
	if err != nil {
		return nil, err
	}
	days := 0
	if on {
		if days, err = c.interval("RotationInterval"); err != nil {
			return nil, err
		}
	}
	return c.change(func(key string) error { return c.kms.SetRotation(c.ctx, key, days) })
}
