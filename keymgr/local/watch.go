package local

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"sealblk/keymgr"
)

var _ keymgr.Watchable = (*KMS)(nil)

// Usable tells whether the principal may unwrap data keys under a key now. It needs no
// permission and is not recorded: it says nothing that a refused Decrypt would not say,
// and opens nothing. What changed the answer is in the log: who disabled the key, took
// the permission away, or that the KMS itself forgot the material when it was due. All
// versions of a key unwrap, or none.
func (k *KMS) Usable(ctx context.Context, key, _ string) error {
	t, err := k.store.begin(ctx)
	if err != nil {
		return err
	}
	defer t.end()
	if err := k.catchUp(t); err != nil {
		return err
	}
	r, err := t.find(k.region, key)
	if err != nil {
		return err
	}
	return k.mayUse(r, Decrypt)
}

// Stamp is that of the index, which every change of any key replaces.
func (k *KMS) Stamp(string) string {
	info, err := os.Stat(k.store.path(indexFile))
	if err != nil {
		return ""
	}
	inode := uint64(0)
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = st.Ino
	}
	return fmt.Sprint(inode, info.ModTime().UnixNano(), info.Size())
}
