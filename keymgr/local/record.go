package local

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"sealblk/keymgr"
)

const recordFormat = "sealblk-kms-key"

// originKMS: the material was made here.
const originKMS = "kms"

// record is a CMK as it is stored.
type record struct {
	ID string `json:"id"`
	// Generation counts the writes of this record, from 1.
	Generation   uint64                  `json:"generation"`
	Region       string                  `json:"region"`
	Service      bool                    `json:"service"`
	State        keymgr.State            `json:"state"`
	Origin       string                  `json:"origin"`
	Description  string                  `json:"description"`
	Created      time.Time               `json:"created"`
	DeletionDate *time.Time              `json:"deletion_date,omitempty"`
	Policy       map[string][]Permission `json:"policy"`
	// Versions are numbered from 1 without gaps; the last one is the primary.
	Versions []version `json:"versions"`
}

// version is one generation of a CMK's material.
type version struct {
	Number   uint32    `json:"number"`
	Created  time.Time `json:"created"`
	Material []byte    `json:"material"` // sealed under the root key
}

// primary is the number of the version that wraps, 0 if there is none.
func (r *record) primary() uint32 { return uint32(len(r.Versions)) }

func recordFile(id string) string { return "keys/" + id + ".json" }

// parseRecord reads an authenticated body. The string is what is wrong, "" if
// nothing is.
func parseRecord(body []byte, id string) (*record, string) {
	var r record
	if err := decodeStrictly(body, &r); err != nil {
		return nil, "its record does not parse"
	}
	if again, err := json.Marshal(r); err != nil || string(again) != string(body) {
		return nil, "its record is not in the form in which it was written"
	}
	if r.ID != id {
		return nil, "it holds another key"
	}
	if !r.consistent() {
		return nil, "its record contradicts itself"
	}
	return &r, ""
}

func (r *record) consistent() bool {
	for i, v := range r.Versions {
		if v.Number != uint32(i+1) || len(v.Material) != keySize+sealOverhead {
			return false
		}
	}
	for principal, granted := range r.Policy {
		if checkPrincipal(principal) != nil || checkPermissions(granted) != nil {
			return false
		}
	}
	pending := r.State == keymgr.PendingDeletion
	return validID(r.ID) && r.Generation > 0 && checkRegion(r.Region) == nil &&
		slices.Contains(states, r.State) && pending == (r.DeletionDate != nil) &&
		(len(r.Versions) > 0 || r.State != keymgr.Enabled)
}

// info describes the key to the world.
func (r *record) info(aliases []string) keymgr.KeyInfo {
	info := keymgr.KeyInfo{
		URI:          keymgr.SchemeLocal + ":" + r.ID,
		KeyID:        r.ID,
		Aliases:      aliases,
		State:        r.State,
		Origin:       r.Origin,
		Description:  r.Description,
		Service:      r.Service,
		Versions:     len(r.Versions),
		Created:      r.Created,
		Region:       r.Region,
		DeletionDate: r.DeletionDate,
	}
	if n := len(r.Versions); n > 0 {
		info.PrimaryVersion = strconv.Itoa(n)
	}
	return info
}
