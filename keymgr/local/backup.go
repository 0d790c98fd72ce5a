package local

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/argon2"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// Layout of a backup, see the package documentation.
const (
	backupMagic  = "SBKMSB\x00\x01"
	backupSalt   = len(backupMagic) + 12
	backupRoot   = backupSalt + 16
	backupSealed = backupRoot + keySize + sealOverhead

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

// backupMark remembers the last backup.
type backupMark struct {
	Time time.Time `json:"time"`
	// Materials is how many the KMS had made by then.
	Materials uint64 `json:"materials"`
}

// BackupStatus tells what would be lost with the host.
type BackupStatus struct {
	Keys uint64 `json:"keys"`
	// Last is nil when no backup was made.
	Last *time.Time `json:"last"`
	// Unsaved counts the keys and versions that were made since.
	Unsaved uint64 `json:"unsaved"`
}

// Needed tells whether there is something to lose.
func (s BackupStatus) Needed() bool { return s.Keys > 0 && (s.Last == nil || s.Unsaved > 0) }

// BackupStatus tells whether a backup is needed. It is not recorded.
func (k *KMS) BackupStatus(ctx context.Context) (BackupStatus, error) {
	t, err := k.store.begin(ctx)
	if errors.Is(err, errNoKMS) {
		return BackupStatus{}, nil
	}
	if err != nil {
		return BackupStatus{}, err
	}
	defer t.end()
	s := BackupStatus{Keys: uint64(len(t.index.Keys)), Unsaved: t.index.Materials}
	if b := t.index.Backup; b != nil {
		s.Last, s.Unsaved = &b.Time, t.index.Materials-b.Materials
	}
	return s, nil
}

// Backup seals the whole KMS with its root key under a passphrase and gives it to
// save, which must make it durable: only then does the KMS count as saved. Only
// Operator may. A damaged audit log does not keep the keys from being saved: the backup
// holds it as it is, and Options.Warn is told.
func (k *KMS) Backup(ctx context.Context, passphrase *secret.Buffer, save func([]byte) error) error {
	salt, err := secret.Random(backupRoot - backupSalt) // no secret, but at hand
	if err != nil {
		return fmt.Errorf("make salt: %w", err)
	}
	defer salt.Destroy()
	key, err := usualStretching.stretch(passphrase, salt.Bytes())
	if err != nil {
		return err
	}
	defer key.Destroy()
	return k.call(ctx, Entry{Operation: "Backup"}, func(t *session) error {
		if k.principal != Operator {
			return onlyOperator("back up the KMS", k.principal)
		}
		data, err := t.backup(key, backupHeader(usualStretching, salt.Bytes()))
		if err != nil {
			return err
		}
		if err := k.checkAudit(t); err != nil {
			return fmt.Errorf("back up: %w", err)
		}
		if err := save(data); err != nil {
			return fmt.Errorf("save backup: %w", err)
		}
		t.index.Backup = &backupMark{k.clock(), t.index.Materials}
		return t.commit()
	})
}

func backupHeader(s stretching, salt []byte) []byte {
	h := []byte(backupMagic)
	for _, n := range []uint32{s.passes, s.memory, s.threads} {
		h = binary.BigEndian.AppendUint32(h, n)
	}
	return append(h, salt...)
}

// backup is the sealed content of the folder. Its keys must be whole: a backup of a
// damaged KMS would replace a good one.
func (t *session) backup(key *secret.Buffer, header []byte) ([]byte, error) {
	if err := t.checkKeys(); err != nil {
		return nil, fmt.Errorf("back up: %w", err)
	}
	stored := map[string][]byte{}
	for _, name := range t.fileNames() {
		data, err := t.read(name, maxFile)
		if err != nil {
			return nil, fmt.Errorf("back up: %w", err)
		}
		stored[name] = data
	}
	body, err := json.Marshal(stored)
	if err != nil {
		return nil, fmt.Errorf("encode backup: %w", err)
	}
	root, err := seal(key, t.root.Bytes(), header)
	if err != nil {
		return nil, fmt.Errorf("seal root key: %w", err)
	}
	out := append(header, root...)
	sealed, err := seal(key, body, out)
	if err != nil {
		return nil, fmt.Errorf("seal backup: %w", err)
	}
	return append(out, sealed...), nil
}

// fileNames are the files of the folder that a backup holds.
func (t *session) fileNames() []string {
	names := []string{indexFile}
	if t.index.Audit.Count > 0 {
		names = append(names, auditFile)
	}
	for _, id := range t.index.ids() {
		names = append(names, recordFile(id))
	}
	return names
}

// checkAudit warns of a damaged audit log.
func (k *KMS) checkAudit(t *session) error {
	err := t.walkAudit(func(Entry) {})
	var e *keymgr.Error
	if !errors.As(err, &e) || e.Code != CodeAudit {
		return err
	}
	if k.warn != nil {
		k.warn(err)
	}
	return nil
}

// checkKeys opens all that keys need: records and their material.
func (t *session) checkKeys() error {
	errs := []error{t.checkStrays()}
	for _, id := range t.index.ids() {
		r, err := t.load(id)
		if errors.Is(err, errDestroyed) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, v := range r.Versions {
			if len(v.Material) == 0 {
				continue
			}
			m, err := t.material(r, v.Number)
			m.Destroy()
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// parseBackup takes a backup apart without opening it.
func parseBackup(data []byte) (s stretching, salt []byte, err error) {
	if len(data) < backupSealed+sealOverhead || string(data[:len(backupMagic)]) != backupMagic {
		return s, nil, badBackup("it is not a backup of this KMS, or of a newer one, or it was cut")
	}
	n := data[len(backupMagic):]
	s = stretching{binary.BigEndian.Uint32(n), binary.BigEndian.Uint32(n[4:]), binary.BigEndian.Uint32(n[8:])}
	if !s.allowed() {
		return s, nil, badBackup("it asks for an unreasonable amount of work")
	}
	return s, data[backupSalt:backupRoot], nil
}

// openBackup returns the root key, which the caller destroys, and the files.
func openBackup(data []byte, passphrase *secret.Buffer) (root *secret.Buffer, stored map[string][]byte, err error) {
	s, salt, err := parseBackup(data)
	if err != nil {
		return nil, nil, err
	}
	key, err := s.stretch(passphrase, salt)
	if err != nil {
		return nil, nil, err
	}
	defer key.Destroy()
	g, err := newAEAD(key)
	if err != nil {
		return nil, nil, err
	}
	body, err := g.Open(nil, nil, data[backupSealed:], data[:backupSealed])
	if err != nil {
		return nil, nil, badBackup("the passphrase is wrong, or the backup was altered")
	}
	if err := json.Unmarshal(body, &stored); err != nil {
		return nil, nil, badBackup("its content does not parse")
	}
	root, err = unseal(key, data[backupRoot:backupSealed], data[:backupRoot])
	if err == nil && root == nil {
		err = badBackup("its root key does not open")
	}
	return root, stored, err
}

func badBackup(why string) error {
	return &keymgr.Error{
		Code: CodeBackup, Hint: "try another passphrase, or another copy of the backup",
		Err: fmt.Errorf("open backup: %s: %w", why, keymgr.ErrCorrupt),
	}
}
