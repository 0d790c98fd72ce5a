package attach

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sealblk/disk"
	"sealblk/internal/atomicfile"
)

// notePath is where an attachment is noted. No file of a disk of another name is
// called so: those end in .json, .ctl, .sock and .log.
func notePath(c *disk.Catalogue, name string) string {
	return filepath.Join(c.Dir(), "run", name+".attach")
}

func (a Attachment) save(c *disk.Catalogue) error {
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return atomicfile.Write(notePath(c, a.Disk), data, 0o600)
}

func (a Attachment) forget(c *disk.Catalogue) error {
	return atomicfile.Remove(notePath(c, a.Disk))
}

func load(c *disk.Catalogue, name string) (Attachment, error) {
	data, err := os.ReadFile(notePath(c, name))
	if errors.Is(err, os.ErrNotExist) {
		return Attachment{}, fmt.Errorf("disk %s: %w", name, ErrNotAttached)
	}
	if err != nil {
		return Attachment{}, err
	}
	var a Attachment
	if err := json.Unmarshal(data, &a); err != nil || a.Disk != name {
		return Attachment{}, fmt.Errorf("%s is damaged: unplug the disk by hand, then remove that file", notePath(c, name))
	}
	return a, nil
}
