package local

import (
	"encoding/json"
	"maps"
	"slices"
	"time"
)

const (
	indexFormat = "sealblk-kms-index"
	indexFile   = "index.json"
)

// index is what the KMS knows without looking into the records.
type index struct {
	// Keys holds the generation of each key's record.
	Keys map[string]uint64 `json:"keys"`
	// Aliases maps, for each region, full alias names to key ids.
	Aliases map[string]map[string]string `json:"aliases"`
	// Pending are committed records that may not be in their files yet.
	Pending []*record `json:"pending,omitempty"`
	// Due is when something must be done with a key without being asked.
	Due map[string]time.Time `json:"due,omitempty"`
	// Materials counts the versions that were made or imported; Backup is nil before the
	// first backup.
	Materials uint64      `json:"materials,omitempty"`
	Backup    *backupMark `json:"backup,omitempty"`
	// Audit is the end of the audit log.
	Audit auditHead `json:"audit,omitzero"`
}

func newIndex() *index {
	return &index{Keys: map[string]uint64{}, Aliases: map[string]map[string]string{}}
}

// parseIndex reads an authenticated body. The string is what is wrong, "" if nothing
// is.
func parseIndex(body []byte) (*index, string) {
	ix := newIndex()
	if err := decodeStrictly(body, ix); err != nil {
		return nil, "its content does not parse"
	}
	if again, err := json.Marshal(ix); err != nil || string(again) != string(body) {
		return nil, "its content is not in the form in which it was written"
	}
	if !ix.consistent() {
		return nil, "its content contradicts itself"
	}
	return ix, ""
}

func (ix *index) consistent() bool {
	for id, generation := range ix.Keys {
		if !validID(id) || generation == 0 {
			return false
		}
	}
	for region, names := range ix.Aliases {
		for alias, id := range names {
			if checkRegion(region) != nil || aliasOf(alias) != alias || ix.Keys[id] == 0 {
				return false
			}
		}
	}
	for id := range ix.Due {
		if ix.Keys[id] == 0 {
			return false
		}
	}
	for _, r := range ix.Pending {
		if r == nil || !r.consistent() || ix.Keys[r.ID] != r.Generation {
			return false
		}
	}
	return ix.Keys != nil && ix.Aliases != nil && ix.Audit.consistent() &&
		(ix.Backup == nil || ix.Backup.Materials <= ix.Materials)
}

func (ix *index) ids() []string { return slices.Sorted(maps.Keys(ix.Keys)) }

// aliasesOf are the aliases of a key, sorted; never nil.
func (ix *index) aliasesOf(r *record) []string {
	names := []string{}
	for alias, id := range ix.Aliases[r.Region] {
		if id == r.ID {
			names = append(names, alias)
		}
	}
	slices.Sort(names)
	return names
}

func (ix *index) setAlias(region, alias, id string) {
	if ix.Aliases[region] == nil {
		ix.Aliases[region] = map[string]string{}
	}
	ix.Aliases[region][alias] = id
}

func (ix *index) deleteAlias(region, alias string) {
	delete(ix.Aliases[region], alias)
	if len(ix.Aliases[region]) == 0 {
		delete(ix.Aliases, region)
	}
}

func (ix *index) deleteAliasesOf(r *record) {
	for _, alias := range ix.aliasesOf(r) {
		ix.deleteAlias(r.Region, alias)
	}
}
