package kmsserver

import (
	"cmp"
	"slices"

	"sealblk/keymgr"
)

func (c *call) createAlias() (any, error) {
	return c.change(func(key string) error { return c.kms.CreateAlias(c.ctx, c.params["AliasName"], key) })
}

func (c *call) updateAlias() (any, error) {
	return c.change(func(key string) error { return c.kms.UpdateAlias(c.ctx, c.params["AliasName"], key) })
}

func (c *call) deleteAlias() (any, error) {
	return none{}, c.kms.DeleteAlias(c.ctx, c.params["AliasName"])
}

type aliasItem struct{ AliasArn, AliasName, KeyId string }

type aliasesReply struct {
	page
	Aliases struct{ Alias []aliasItem }
}

// listAliases lists those of the server's region: in another one a name means another
// key.
func (c *call) listAliases() (any, error) {
	keys, err := c.kms.ListKeys(c.ctx)
	if err != nil {
		return nil, err
	}
	keys = slices.DeleteFunc(keys, func(k keymgr.KeyInfo) bool { return k.Region != c.region })
	return c.aliases(keys)
}

func (c *call) listAliasesByKeyID() (any, error) {
	key, err := c.key("KeyId")
	if err != nil {
		return nil, err
	}
	k, err := c.kms.DescribeKey(c.ctx, key)
	if err != nil {
		return nil, err
	}
	return c.aliases([]keymgr.KeyInfo{k})
}

func (c *call) aliases(keys []keymgr.KeyInfo) (any, error) {
	all := []aliasItem{}
	for _, k := range keys {
		for _, alias := range k.Aliases {
			all = append(all, aliasItem{c.arn(alias), alias, k.KeyID})
		}
	}
	slices.SortFunc(all, func(a, b aliasItem) int { return cmp.Compare(a.AliasName, b.AliasName) })
	p, part, err := cut(c, all)
	reply := aliasesReply{page: p}
	reply.Aliases.Alias = part
	return reply, err
}
