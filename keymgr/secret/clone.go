package secret

import (
	"fmt"

	"sealblk/internal/sigmask"
)

// Clone returns the same secret in a buffer of its own. It fails on a destroyed one.
func (b *Buffer) Clone() (*Buffer, error) {
	from := b.Bytes()
	if from == nil {
		return nil, fmt.Errorf("clone secret: %w", ErrDestroyed)
	}
	out, err := New(len(from))
	if err != nil {
		return nil, err
	}
	// The copy goes through registers.
	if err := sigmask.Do(func() error { copy(out.Bytes(), from); return nil }); err != nil {
		out.Destroy()
		return nil, fmt.Errorf("clone secret: %w", err)
	}
	return out, nil
}
