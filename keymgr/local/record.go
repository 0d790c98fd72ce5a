package local

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"sealblk/keymgr"
)

const recordFormat = "sealblk-kms-key"

// Where a key's material was made: here, or by who imports it.
const (
	originKMS      = "kms"
	originExternal = "external"
)

// record is a CMK as it is stored.
type record struct {
	ID string `json:"id"`
	// Generation counts the writes of this record, from 1.
	Generation   uint64       `json:"generation"`
	Region       string       `json:"region"`
	Service      bool         `json:"service"`
	State        keymgr.State `json:"state"`
	Origin       string       `json:"origin"`
	Description  string       `json:"description"`
	Created      time.Time    `json:"created"`
	DeletionDate *time.Time   `json:"deletion_date,omitempty"`
	// Destroyed is set when the material was destroyed; the record tells that there was
	// a key.
	Destroyed *time.Time              `json:"destroyed,omitempty"`
	Policy    map[string][]Permission `json:"policy"`
	// RotateDays is how often the key rotates by itself, 0 for never.
	RotateDays int `json:"rotate_days,omitempty"`
	// Protected keys are not deleted.
	Protected bool `json:"protected,omitempty"`
	// Versions are numbered from 1 without gaps; the last one is the primary.
	Versions []version `json:"versions"`
}

// version is one generation of a CMK's material.
type version struct {
	Number   uint32    `json:"number"`
	Created  time.Time `json:"created"`
	Material []byte    `json:"material"` // sealed under the root key; empty when it is forgotten
	// Check knows imported material again; sealed under the root key.
	Check []byte `json:"check,omitempty"`
	// Expires is when imported material is forgotten.
	Expires *time.Time `json:"expires,omitempty"`
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
		if v.Number != uint32(i+1) || len(v.Material) != keySize+sealOverhead && len(v.Material) != 0 {
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
		(r.hasMaterial() || r.State != keymgr.Enabled && r.State != keymgr.Disabled) &&
		checkRotation(r.RotateDays, r.Origin) == nil && (r.Destroyed == nil || pending)
}

// hasMaterial: data keys can be wrapped, and every one unwrapped.
func (r *record) hasMaterial() bool {
	for _, v := range r.Versions {
		if len(v.Material) == 0 {
			return false
		}
	}
	return len(r.Versions) > 0
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

		DeletionProtection: r.Protected,
		RotationDays:       r.RotateDays,
		NextRotation:       r.nextRotation(),
		MaterialExpires:    r.expiry(),
	}
	if n := len(r.Versions); n > 0 {
		info.PrimaryVersion = strconv.Itoa(n)
	}
	return info
}
