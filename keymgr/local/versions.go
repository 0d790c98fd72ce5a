package local

import (
	"context"
	"strconv"
	"time"
)

// Version describes a version of a CMK.
type Version struct {
	// Version is its number, as blobs name it.
	Version string
	Created time.Time
}

// KeyVersions tells a key's id and its versions, oldest first; the last one wraps.
// Every principal may ask.
func (k *KMS) KeyVersions(ctx context.Context, key string) (id string, list []Version, err error) {
	err = k.look(ctx, "ListKeyVersions", key, func(_ *session, r *record) {
		id = r.ID
		for _, v := range r.Versions {
			list = append(list, Version{strconv.FormatUint(uint64(v.Number), 10), v.Created})
		}
	})
	return id, list, err
}
