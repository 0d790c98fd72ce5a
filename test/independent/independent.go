// Package independent reads an encrypted disk with none of this project's code:
// stock cryptsetup reads the header, golang.org/x/crypto/xts decrypts. Tests and the
// demonstration use it to prove that a disk can be read when this program is gone.
package independent

import (
	"crypto/aes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/crypto/xts"
)

// Layout is where the data of a disk lies in its file, in bytes, and how it is
// encrypted.
type Layout struct {
	Offset, Size int64
	SectorSize   int
}

// luksMetadata is the part of cryptsetup's JSON that says so.
type luksMetadata struct {
	Segments map[string]struct {
		Type       string `json:"type"`
		Offset     string `json:"offset"`
		Size       string `json:"size"`
		IVTweak    string `json:"iv_tweak"`
		Encryption string `json:"encryption"`
		SectorSize int    `json:"sector_size"`
	} `json:"segments"`
}

// Header asks cryptsetup what the LUKS2 header of a file says.
func Header(path string) (Layout, error) {
	out, err := exec.Command("cryptsetup", "luksDump", "--dump-json-metadata", path).Output()
	if err != nil {
		return Layout{}, fmt.Errorf("cryptsetup luksDump: %w", err)
	}
	var m luksMetadata
	if err := json.Unmarshal(out, &m); err != nil {
		return Layout{}, fmt.Errorf("read metadata of cryptsetup: %w", err)
	}
	s, ok := m.Segments["0"]
	if !ok || len(m.Segments) != 1 || s.Type != "crypt" || s.Encryption != "aes-xts-plain64" || s.IVTweak != "0" {
		return Layout{}, fmt.Errorf("metadata of cryptsetup: unexpected segments %+v", m.Segments)
	}
	offset, err1 := strconv.ParseInt(s.Offset, 10, 64)
	size, err2 := strconv.ParseInt(s.Size, 10, 64)
	return Layout{offset, size, s.SectorSize}, errors.Join(err1, err2)
}

// KeyOpens asks cryptsetup whether a file of the raw volume key opens the disk.
func KeyOpens(path, keyFile string) error {
	out, err := exec.Command("cryptsetup", "open", "--test-passphrase", "--type", "luks2",
		"--key-size", "512", "--volume-key-file", keyFile, path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cryptsetup open: %w: %s", err, out)
	}
	return nil
}

// Decrypt writes the plaintext of a disk to w. The tweak is the number of the first
// 512-byte sector of each unit, as dm-crypt's plain64.
func Decrypt(w io.Writer, path string, key []byte, l Layout) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		return err
	}
	data := io.NewSectionReader(f, l.Offset, l.Size)
	unit := make([]byte, l.SectorSize)
	for sector := uint64(0); ; sector += uint64(l.SectorSize / 512) {
		if _, err := io.ReadFull(data, unit); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		c.Decrypt(unit, unit, sector)
		if _, err := w.Write(unit); err != nil {
			return err
		}
	}
}
