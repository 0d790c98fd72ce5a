package local

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"sealblk/keymgr"
)

const (
	auditFile = "audit.log"
	// maxTail is how many records the index holds before the log is synced.
	maxTail = 16
)

// AuditLog calls each for every record, oldest first. It checks the chain on its way:
// an error names the first bad record, which each has not seen, nor those behind it.
// Only Operator may read the log.
func (k *KMS) AuditLog(ctx context.Context, each func(Entry)) error {
	if k.principal != Operator {
		return onlyOperator("read the audit log", k.principal)
	}
	t, err := k.store.begin(ctx)
	if errors.Is(err, errNoKMS) {
		return nil
	}
	if err != nil {
		return err
	}
	defer t.end()
	return t.walkAudit(each)
}

// VerifyAudit checks the whole audit log against its end in the index and tells how
// many records it has.
func (k *KMS) VerifyAudit(ctx context.Context) (records uint64, err error) {
	err = k.AuditLog(ctx, func(e Entry) { records = e.Number })
	return records, err
}

func (t *session) walkAudit(each func(Entry)) error {
	f, err := os.OpenFile(t.path(auditFile), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) && t.index.Audit.Count == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open audit log: %w", err)
	}
	defer f.Close()
	c := chain{key: t.auditKey}
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return t.checkAuditEnd(&c)
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("read audit log: %w", err)
		}
		entry, wrong := c.next(bytes.TrimSuffix(line, []byte("\n")))
		if wrong == "" && err == io.EOF {
			wrong = "is cut"
		}
		if wrong != "" {
			return t.badAudit(c.count+1, wrong)
		}
		each(entry)
	}
}

func (t *session) checkAuditEnd(c *chain) error {
	head := &t.index.Audit
	switch {
	case c.count < head.Count:
		return t.badAudit(c.count+1, fmt.Sprintf("is missing: the log ends there, of %d records", head.Count))
	case c.count > head.Count || !bytes.Equal(c.mac, head.MAC):
		return t.badAudit(c.count, "is not the one with which the log ends")
	}
	return nil
}

func (t *session) badAudit(number uint64, wrong string) error {
	return &keymgr.Error{
		Code: CodeAudit,
		Hint: "the records before it are authentic; look for who could write to " + t.dir + ", and compare with a backup",
		Err:  fmt.Errorf("read %s: record %d %s: %w", t.path(auditFile), number, wrong, keymgr.ErrCorrupt),
	}
}

// settleAudit brings the log to where the index says it ends: a crash may have left
// it behind. A log that was cut before the durable part's end stays damaged: what is
// missing there becomes a hole for VerifyAudit to name.
func (t *session) settleAudit() error {
	head := &t.index.Audit
	if head.Count == 0 {
		return t.refuseLongerLog(0)
	}
	f, err := os.OpenFile(t.path(auditFile), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("open audit log: %w", err)
	}
	defer f.Close()
	tail := head.tail()
	end := head.Durable + int64(len(tail))
	if err := t.refuseLongerLog(end); err != nil {
		return err
	}
	there := make([]byte, len(tail))
	if n, err := f.ReadAt(there, head.Durable); err != nil && err != io.EOF {
		return fmt.Errorf("read audit log: %w", err)
	} else if bytes.Equal(there[:n], tail) {
		return nil
	}
	if _, err := f.WriteAt(tail, head.Durable); err != nil {
		return fmt.Errorf("write audit log: %w", err)
	}
	return t.did("append", auditFile)
}

// refuseLongerLog finds an index that was put back to an older one.
func (t *session) refuseLongerLog(end int64) error {
	info, err := os.Lstat(t.path(auditFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("examine audit log: %w", err)
	}
	if info.Size() > end {
		return damaged(t.path(indexFile), "it is older than "+auditFile+" (one of them put back or altered?)")
	}
	return nil
}

// trimTail makes the log durable and forgets its end in the index, once that is long.
func (t *session) trimTail() error {
	head := &t.index.Audit
	if len(head.Tail) < maxTail {
		return nil
	}
	f, err := os.OpenFile(t.path(auditFile), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("open audit log: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync audit log: %w", err)
	}
	if err := t.did("sync", auditFile); err != nil {
		return err
	}
	head.Durable += int64(len(head.tail()))
	head.Tail = nil
	return syncFolder(t.dir)
}
