package local

import (
	"context"
	"fmt"

	"sealblk/keymgr"
)

// Lost is an error if there is no KMS and there must have been one: its keys wrap what
// Options.Wrapped names. Nothing is made by the way then. A new KMS would open none of it,
// and stand where the old one is to be restored.
func (k *KMS) Lost(ctx context.Context) error {
	if k.wrapped == nil {
		return nil
	}
	if there, err := k.store.there(); err != nil || there {
		return err
	}
	names, err := k.wrapped(ctx)
	if err != nil {
		return fmt.Errorf("look whether there was a KMS: %w", err)
	}
	if len(names) == 0 {
		return nil
	}
	if there, err := k.store.there(); err != nil || there { // another has made it, and used it
		return err
	}
	return &keymgr.Error{
		Code: CodeLost,
		Hint: "bring the folder back, or sealblk kms restore FILE; if there is no backup, sealblk key create begins anew, and what has no key in escrow elsewhere is lost",
		Err:  fmt.Errorf("open %s: it is missing, and its keys wrap %s: %w", k.store.dir, some(names), errNoKMS),
	}
}

// some is a list that does not grow with what it names.
func some(names []string) string {
	const most = 3
	text := names[0]
	for i, name := range names[1:min(len(names), most)] {
		if i == len(names)-2 {
			return text + " and " + name
		}
		text += ", " + name
	}
	if rest := len(names) - most; rest > 0 {
		text += fmt.Sprintf(" and %d more", rest)
	}
	return text
}
