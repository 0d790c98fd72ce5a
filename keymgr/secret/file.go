package secret

import (
	"fmt"
	"os"

	"sealblk/internal/credential"
)

// ReadFile reads a secret of 1 to limit bytes that an operator keeps in a private file:
// a path, or, without a slash, the name of a systemd credential. A pipe may take the
// place of a file.
func ReadFile(name string, limit int) (*Buffer, error) {
	path, err := credential.Path(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	defer f.Close()
	b, err := ReadAll(f, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// ReadTextFile is ReadFile for what is written as a line: a newline at the end does not
// belong to it.
func ReadTextFile(name string, limit int) (*Buffer, error) {
	b, err := ReadFile(name, limit+1)
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
