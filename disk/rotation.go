package disk

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sealblk/internal/atomicfile"
)

// rotation is the note of a CMK that is being rotated and of whose disks not all are
// known to be re-wrapped. It makes the rotation with its re-wrap one operation that can
// be interrupted and called again: without it, that would rotate once more.
type rotation struct {
	KeyURI string `json:"key_uri"`
	// From is the primary version before.
	From    string    `json:"from_version"`
	Started time.Time `json:"started"`
}

func (c *Catalogue) rotationPath(uri string) string {
	sum := sha256.Sum256([]byte(uri))
	return filepath.Join(c.dir, "disks", ".rotation-"+hex.EncodeToString(sum[:8]))
}

// BeginRotation notes that a CMK is about to get a new version, and its disks with it.
func (c *Catalogue) BeginRotation(uri, fromVersion string) error {
	data, err := json.Marshal(rotation{uri, fromVersion, time.Now().UTC().Truncate(time.Second)})
	if err == nil {
		err = atomicfile.Write(c.rotationPath(uri), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("note rotation of %s: %w", uri, err)
	}
	return nil
}

// Rotation tells of a rotation that was begun and not ended, and what the primary
// version was before it.
func (c *Catalogue) Rotation(uri string) (fromVersion string, begun bool, err error) {
	data, err := os.ReadFile(c.rotationPath(uri))
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	var r rotation
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err == nil && r.KeyURI != uri {
		err = fmt.Errorf("it names %s", r.KeyURI)
	}
	if err != nil {
		return "", false, withHint(fmt.Errorf("read note of a rotation: %s: %w", c.rotationPath(uri), err), "remove that file; then the key is rotated again")
	}
	return r.From, true, nil
}

// EndRotation: every disk is under the new version.
func (c *Catalogue) EndRotation(uri string) error { return atomicfile.Remove(c.rotationPath(uri)) }
