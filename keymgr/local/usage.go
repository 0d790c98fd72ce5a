package local

import (
	"cmp"
	"context"
	"slices"
	"time"

	"sealblk/keymgr"
)

// Usage counts the calls on a key that are alike.
type Usage struct {
	Operation string `json:"operation"`
	// Disk is what the data key was for, "" for calls that are about the key itself.
	Disk string `json:"disk"`
	// Calls are all of them, Refused those that failed.
	Calls   uint64    `json:"calls"`
	Refused uint64    `json:"refused"`
	Last    time.Time `json:"last"`
}

// KeyUsage counts the calls on a key by operation and disk, from the audit log. A
// re-encryption counts for both keys. An error beside a result says that the log is
// damaged: what is behind the damage is not counted.
func (k *KMS) KeyUsage(ctx context.Context, key string) (usage []Usage, err error) {
	err = k.call(ctx, Entry{Operation: "GetKeyUsage", Key: key}, func(t *session) error {
		r, err := t.find(k.region, key)
		if err != nil {
			return err
		}
		t.entry.Key = r.ID
		usage, err = t.usage(ctx, r.ID)
		return err
	})
	return usage, err
}

func (t *session) usage(ctx context.Context, id string) ([]Usage, error) {
	type kind struct{ operation, disk string }
	counts := map[kind]*Usage{}
	log, err := t.viewAudit()
	if err != nil {
		return nil, err
	}
	defer log.close()
	err = log.walk(ctx, func(e Entry) {
		if e.Key != id && e.ToKey != id {
			return
		}
		of := kind{e.Operation, e.Context[keymgr.ContextDisk]}
		u := counts[of]
		if u == nil {
			u = &Usage{Operation: of.operation, Disk: of.disk}
			counts[of] = u
		}
		u.Calls++
		u.Last = e.Time
		if e.Result != ResultOK {
			u.Refused++
		}
	})
	list := make([]Usage, 0, len(counts))
	for _, u := range counts {
		list = append(list, *u)
	}
	slices.SortFunc(list, func(a, b Usage) int {
		return cmp.Or(cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Disk, b.Disk))
	})
	return list, err
}
