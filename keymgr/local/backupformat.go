package local

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"golang.org/x/crypto/argon2"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// Layout of a backup, see the package documentation.
const (
	backupMagic  = "SBKMSB\x00"
	backupParams = len(backupMagic) + 1 // the format is between the two
	backupSalt   = backupParams + 12
	backupRoot   = backupSalt + 16
	backupSealed = backupRoot + keySize + sealOverhead

	// Earlier versions made whole backups; this one reads both, and makes streams.
	formatWhole  = 1
	formatStream = 2

	// MinPassphrase is the length of the shortest passphrase, in bytes.
	MinPassphrase = 8
)

// stretching is the work that each guess of a passphrase costs.
type stretching struct {
	passes, memory uint32 // memory in KiB
	threads        uint32
}

// The second recommended option of RFC 9106, section 4. What a backup asks for is
// bounded, as it is done before anything is authentic.
var (
	usualStretching = stretching{passes: 3, memory: 64 << 10, threads: 4}
	mostStretching  = stretching{passes: 16, memory: 1 << 20, threads: 16}
)

// stretch makes a key of a passphrase. Argon2 keeps its work in ordinary memory.
func (s stretching) stretch(passphrase *secret.Buffer, salt []byte) (*secret.Buffer, error) {
	if passphrase.Len() < MinPassphrase {
		return nil, invalid("", fmt.Sprintf("choose one of %d bytes or more", MinPassphrase), "passphrase of %d bytes", passphrase.Len())
	}
	key, err := secret.New(keySize)
	if err != nil {
		return nil, err
	}
	made := argon2.IDKey(passphrase.Bytes(), salt, s.passes, s.memory, uint8(s.threads), keySize)
	copy(key.Bytes(), made)
	clear(made)
	return key, nil
}

func (s stretching) allowed() bool {
	within := func(n, most uint32) bool { return n > 0 && n <= most }
	return within(s.passes, mostStretching.passes) && within(s.memory, mostStretching.memory) && within(s.threads, mostStretching.threads)
}

func backupHeader(s stretching, salt []byte) []byte {
	h := append([]byte(backupMagic), formatStream)
	for _, n := range []uint32{s.passes, s.memory, s.threads} {
		h = binary.BigEndian.AppendUint32(h, n)
	}
	return append(h, salt...)
}

// parseOpening takes the start of a backup apart, up to what is sealed in it.
func parseOpening(opening []byte) (format byte, s stretching, salt []byte, err error) {
	if len(opening) != backupSealed || string(opening[:len(backupMagic)]) != backupMagic {
		return 0, s, nil, badBackup("it is not a backup of this KMS, or it was cut")
	}
	if format = opening[len(backupMagic)]; format != formatWhole && format != formatStream {
		return 0, s, nil, badBackup(fmt.Sprintf("its format %d is unknown, or of a newer program", format))
	}
	n := opening[backupParams:]
	s = stretching{binary.BigEndian.Uint32(n), binary.BigEndian.Uint32(n[4:]), binary.BigEndian.Uint32(n[8:])}
	if !s.allowed() {
		return 0, s, nil, badBackup("it asks for an unreasonable amount of work")
	}
	return format, s, opening[backupSalt:backupRoot], nil
}

// openedBackup is a backup whose passphrase is right. Its files are still to be read.
type openedBackup struct {
	root    *secret.Buffer // the caller of openBackup destroys it
	format  byte
	opening []byte
	aead    cipher.AEAD
	rest    io.Reader
}

// openBackup reads no more than the start of a backup: the root key, which stands there,
// shows whether the passphrase is right.
func openBackup(r io.Reader, passphrase *secret.Buffer) (*openedBackup, error) {
	opening := make([]byte, backupSealed)
	n, err := io.ReadFull(r, opening)
	if err != nil && !ended(err) {
		return nil, fmt.Errorf("read backup: %w", err)
	}
	format, s, salt, err := parseOpening(opening[:n])
	if err != nil {
		return nil, err
	}
	key, err := s.stretch(passphrase, salt)
	if err != nil {
		return nil, err
	}
	defer key.Destroy()
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	root, err := unseal(key, opening[backupRoot:], opening[:backupRoot])
	if err == nil && root == nil {
		err = badBackup("the passphrase is wrong, or the backup was altered")
	}
	return &openedBackup{root, format, opening, aead, r}, err
}

// putFunc takes one file of a backup: its name, its size and its content.
type putFunc func(name string, size int64, content io.Reader) error

// each gives all files to put.
func (b *openedBackup) each(put putFunc) error {
	if b.format == formatWhole {
		return b.eachOfWhole(put)
	}
	return eachFile(newChunkReader(b.rest, b.aead, b.opening), put)
}

func (b *openedBackup) eachOfWhole(put putFunc) error {
	sealed, err := io.ReadAll(b.rest)
	if err != nil {
		return fmt.Errorf("read backup: %w", err)
	}
	if len(sealed) < sealOverhead {
		return badBackup("it was cut")
	}
	body, err := b.aead.Open(nil, nil, sealed, b.opening)
	if err != nil {
		return badBackup("it was altered or cut")
	}
	var stored map[string][]byte
	if err := json.Unmarshal(body, &stored); err != nil {
		return badBackup("its content does not parse")
	}
	for _, name := range slices.Sorted(maps.Keys(stored)) {
		if err := put(name, int64(len(stored[name])), bytes.NewReader(stored[name])); err != nil {
			return err
		}
	}
	return nil
}

// ended tells whether an error of io.ReadFull or io.CopyN says that there is no more.
func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

func badBackup(why string) error {
	return &keymgr.Error{
		Code: CodeBackup, Hint: "try another passphrase, or another copy of the backup",
		Err: fmt.Errorf("open backup: %s: %w", why, keymgr.ErrCorrupt),
	}
}
