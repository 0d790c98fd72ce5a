package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// session is exclusive use of a store for one call.
type session struct {
	*store
	index *index
	held  *os.File
	// entry records the call; written is whether that was tried, or is left to another
	// session.
	entry   Entry
	written bool
	// unsure: a write failed, and what is stored may not be what index says.
	unsure bool
}

// begin waits for the store, reads its index and finishes a change that a crash
// interrupted.
func (s *store) begin(ctx context.Context) (*session, error) {
	return s.use(ctx, false)
}

// beginNew is begin for a call that makes a key: it makes the KMS if there is none.
func (s *store) beginNew(ctx context.Context) (*session, error) {
	return s.use(ctx, true)
}

func (s *store) use(ctx context.Context, make bool) (*session, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("use KMS: %w", err)
	}
	s.mu.Lock()
	t := &session{store: s}
	started := false
	defer func() {
		if !started {
			t.end()
		}
	}()
	if err := t.start(make); err != nil {
		return nil, err
	}
	started = true
	return t, nil
}

func (t *session) start(make bool) (err error) {
	if t.held, err = t.require(make); err != nil {
		return err
	}
	return t.readIndex()
}

// readIndex takes what is stored, and finishes a change in it.
func (t *session) readIndex() error {
	body, err := t.readDocument(indexFile, indexFormat)
	if err != nil {
		return err
	}
	ix, wrong := parseIndex(body)
	if wrong != "" {
		return damaged(t.path(indexFile), wrong)
	}
	t.index = ix
	return t.settle()
}

// require sees to it that there is a KMS, and locks it: another process may have made
// one since the folder was opened.
func (t *session) require(make bool) (*os.File, error) {
	if t.closed {
		return nil, ErrClosed
	}
	if t.root != nil {
		return t.lock()
	}
	there, err := t.there()
	if err != nil {
		return nil, err
	}
	if !there && !make {
		return nil, noKMS(t.dir)
	}
	return t.prepareAndLock()
}

func (t *session) end() {
	if t.held != nil {
		t.held.Close()
	}
	t.mu.Unlock()
}

// record puts the end of a call into the audit log. A call that cannot be recorded
// fails.
func (t *session) record(failure error) error {
	if t.written {
		return failure // with the change, or not at all
	}
	t.entry.Result = resultOf(failure)
	if t.unsure {
		if err := t.readIndex(); err != nil {
			return errors.Join(failure, err)
		}
	}
	if err := t.write(t.entry); err != nil {
		return errors.Join(failure, fmt.Errorf("record call: %w", err))
	}
	return failure
}

// recordLater ends a session whose call goes on without the store: another session
// records how it ended.
func (t *session) recordLater() { t.written = true }

func resultOf(failure error) string {
	var e *keymgr.Error
	switch {
	case failure == nil:
		return ResultOK
	case errors.As(failure, &e) && e.Code != "":
		return e.Code
	}
	return resultFailed
}

// commit ends a call that changes something: the session's index and the changed
// records are stored with the call's audit record, all or nothing.
func (t *session) commit(changed ...*record) error {
	t.written = true
	t.entry.Result = ResultOK
	return t.write(t.entry, changed...)
}

// write stores the session's index, changed records and an audit record as one
// change.
func (t *session) write(e Entry, changed ...*record) error {
	t.unsure = true
	if err := t.trimTail(); err != nil {
		return err
	}
	if err := t.index.Audit.add(t.auditKey, e); err != nil {
		return err
	}
	for _, r := range changed {
		r.Generation = t.index.Keys[r.ID] + 1
		t.index.Keys[r.ID] = r.Generation
		t.index.plan(r)
	}
	t.index.Pending = changed
	if err := t.writeDocument(indexFile, indexFormat, t.index); err != nil {
		return fmt.Errorf("commit change: %w", err)
	}
	if err := t.settle(); err != nil {
		return err
	}
	t.unsure = false
	return nil
}

// settle writes what was committed into its files.
func (t *session) settle() error {
	if err := t.settleAudit(); err != nil {
		return err
	}
	if len(t.index.Pending) == 0 {
		return nil
	}
	for _, r := range t.index.Pending {
		if err := t.checkPredecessor(r); err != nil {
			return err
		}
		if err := t.writeDocument(recordFile(r.ID), recordFormat, r); err != nil {
			return fmt.Errorf("store key: %w", err)
		}
	}
	t.index.Pending = nil
	if err := t.writeDocument(indexFile, indexFormat, t.index); err != nil {
		return fmt.Errorf("finish change: %w", err)
	}
	return nil
}

// checkPredecessor refuses to write a pending record over anything but its
// predecessor or itself: an index that was put back to the middle of an old change
// must not take the record back with it.
func (t *session) checkPredecessor(r *record) error {
	if r.Generation == 1 {
		there, err := t.exists(recordFile(r.ID))
		if err != nil || !there {
			return err
		}
	}
	_, err := t.loadGeneration(r.ID, r.Generation-1, r.Generation)
	return err
}

// load reads the record of a key that the index knows.
func (t *session) load(id string) (*record, error) {
	generation, known := t.index.Keys[id]
	if !known {
		return nil, t.unknown(id)
	}
	r, err := t.loadGeneration(id, generation, generation)
	if err == nil && r.Destroyed != nil {
		return nil, &keymgr.Error{
			Code: CodeKeyNotFound, Key: id, Hint: "nothing opens what it wrapped but a copy of its material",
			Err: fmt.Errorf("on %s: %w", r.Destroyed.Format(time.DateOnly), errDestroyed),
		}
	}
	return r, err
}

// loadGeneration reads a record whose generation is in a range.
func (t *session) loadGeneration(id string, oldest, newest uint64) (*record, error) {
	name := recordFile(id)
	body, err := t.readDocument(name, recordFormat)
	if err != nil {
		return nil, err
	}
	r, wrong := parseRecord(body, id)
	switch {
	case wrong != "":
		return nil, damaged(t.path(name), wrong)
	case r.Generation < oldest:
		return nil, damaged(t.path(name), "it is older than what was last written (put back?)")
	case r.Generation > newest:
		return nil, damaged(t.path(indexFile), "it is older than "+name+" (put back?)")
	}
	return r, nil
}

// unknown tells a key that never was from one that the index lost.
func (t *session) unknown(id string) error {
	stray, err := t.exists(recordFile(id))
	if err != nil {
		return fmt.Errorf("look for key: %w", err)
	}
	if stray {
		return damaged(t.path(recordFile(id)), indexFile+" does not know it (one of them put back?)")
	}
	return &keymgr.Error{Code: CodeKeyNotFound, Key: id, Hint: "list the keys: sealblk key list", Err: keymgr.ErrNotFound}
}

// find loads the key that an id or an alias names.
func (t *session) find(region, name string) (*record, error) {
	if validID(name) {
		return t.load(name)
	}
	alias := aliasOf(name)
	if id, ok := t.index.Aliases[region][alias]; ok {
		return t.load(id)
	}
	if err := t.checkStrays(); err != nil {
		return nil, err // the name may be in what was lost
	}
	hint := "list the keys: sealblk key list; an alias is written alias/NAME"
	if alias == ServiceAlias {
		hint = "the service key is made when encryption is first used without a key"
	}
	return nil, &keymgr.Error{
		Code: CodeAliasNotFound, Key: name, Hint: hint,
		Err: fmt.Errorf("region %s: %w", region, keymgr.ErrNotFound),
	}
}

// checkStrays finds a key file that the index does not know: proof that the index
// was put back to an older one.
func (t *session) checkStrays() error {
	stored, err := t.storedIDs()
	if err != nil {
		return err
	}
	for _, id := range stored {
		if t.index.Keys[id] == 0 {
			return t.unknown(id)
		}
	}
	return nil
}

// newRecord is an enabled key with one version, or one that waits for its material.
func (t *session) newRecord(k *KMS, policy map[string][]Permission, origin string) (*record, error) {
	r := &record{
		ID: newID(), Region: k.region, State: keymgr.Enabled, Origin: origin,
		Created: k.clock(), Policy: policy,
	}
	if origin == originExternal {
		r.State = keymgr.PendingImport
		return r, nil
	}
	return r, t.addVersion(k, r)
}

// addVersion makes new material and with it the new primary version.
func (t *session) addVersion(k *KMS, r *record) error {
	material, err := t.random(keySize)
	if err != nil {
		return fmt.Errorf("make key material: %w", err)
	}
	defer material.Destroy()
	number := uint32(len(r.Versions) + 1)
	sealed, err := seal(t.root, material.Bytes(), materialAAD(r.ID, number))
	if err != nil {
		return fmt.Errorf("seal key material: %w", err)
	}
	t.index.Materials++
	r.Versions = append(r.Versions, version{Number: number, Created: k.clock(), Material: sealed})
	return nil
}

// material opens the material of one version; the caller destroys it.
func (t *session) material(r *record, number uint32) (*secret.Buffer, error) {
	i := slices.IndexFunc(r.Versions, func(v version) bool { return v.Number == number })
	if i < 0 {
		return nil, badBlob(r.ID, fmt.Sprintf("the key has no version %d", number))
	}
	if len(r.Versions[i].Material) == 0 {
		return nil, fmt.Errorf("open key material: %w", r.refuse(CodePendingImport))
	}
	m, err := unseal(t.root, r.Versions[i].Material, materialAAD(r.ID, number))
	if err != nil {
		return nil, fmt.Errorf("open key material: %w", err)
	}
	if m == nil {
		return nil, damaged(t.path(recordFile(r.ID)), fmt.Sprintf("material of version %d does not open", number))
	}
	return m, nil
}
