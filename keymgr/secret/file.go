package secret

import (
	"context"
	"fmt"
	"os"

	"sealblk/internal/credential"
)

// ReadFile reads a secret of 1 to limit bytes that an operator keeps in a private file:
// a path, or, without a slash, the name of a systemd credential. A pipe may take the
// place of a file, and is waited for until ctx ends.
func ReadFile(ctx context.Context, name string, limit int) (b *Buffer, err error) {
	err = credential.Use(ctx, name, func(f *os.File) (err error) {
		b, err = ReadAll(f, limit)
		return err
	})
	return b, err
}

// ReadTextFile is ReadFile for what is written as a line: a newline at the end does not
// belong to it.
func ReadTextFile(ctx context.Context, name string, limit int) (*Buffer, error) {
	b, err := ReadFile(ctx, name, limit+1)
	if err != nil {
		return nil, err
	}
	defer b.Destroy()
	n := b.Len()
	if b.Bytes()[n-1] == '\n' {
		n--
	}
	if n < 1 || n > limit {
		return nil, fmt.Errorf("%s: read secret of 1 to %d bytes: %w", name, limit, ErrSize)
	}
	return b.First(n)
}
