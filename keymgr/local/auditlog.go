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
	"path/filepath"

	"golang.org/x/sys/unix"

	"sealblk/keymgr"
)

const (
	auditFile = "audit.log"
	// maxTail is how many records the index holds before the log is synced.
	maxTail = 16
)

// AuditLog calls each for every record that there is by now, oldest first. It checks the
// chain on its way: an error names the first bad record, which each has not seen, nor
// those behind it. Only Operator may read the log. The KMS may be used meanwhile.
func (k *KMS) AuditLog(ctx context.Context, each func(Entry)) error {
	if k.principal != Operator {
		return onlyOperator("read the audit log", k.principal)
	}
	log, err := k.viewAudit(ctx)
	if errors.Is(err, errNoKMS) {
		return nil
	}
	if err != nil {
		return err
	}
	defer log.close()
	return log.walk(ctx, each)
}

// VerifyAudit checks the whole audit log against its end in the index and tells how
// many records it has.
func (k *KMS) VerifyAudit(ctx context.Context) (records uint64, err error) {
	err = k.AuditLog(ctx, func(e Entry) { records = e.Number })
	return records, err
}

func (k *KMS) viewAudit(ctx context.Context) (*logView, error) {
	t, err := k.store.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer t.end()
	return t.viewAudit()
}

// logView is the audit log as it was at one moment. The log only grows, so this much of
// it is read without the lock of the KMS, however long that takes.
type logView struct {
	dir  string
	file *os.File // nil where size is 0
	size int64
	// The chain that it must have: the key, the number of records, the last one's MAC.
	key   []byte
	count uint64
	mac   []byte
}

// viewAudit needs a settled log: that ends where the index says.
func (t *session) viewAudit() (*logView, error) {
	head := &t.index.Audit
	v := &logView{dir: t.dir, key: bytes.Clone(t.auditKey), count: head.Count, mac: head.MAC}
	if head.Count == 0 {
		return v, nil
	}
	f, err := os.OpenFile(t.path(auditFile), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	v.file, v.size = f, head.Durable+int64(len(head.tail()))
	return v, nil
}

func (v *logView) close() {
	clear(v.key)
	if v.file != nil {
		v.file.Close()
	}
}

// reader reads the log until ctx ends.
func (v *logView) reader(ctx context.Context) io.Reader {
	if v.file == nil {
		return bytes.NewReader(nil)
	}
	return wantedReader{ctx, io.NewSectionReader(v.file, 0, v.size)}
}

type wantedReader struct {
	ctx context.Context
	r   io.Reader
}

func (w wantedReader) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.r.Read(p)
}

// walk keeps one record in memory at a time.
func (v *logView) walk(ctx context.Context, each func(Entry)) error {
	c := chain{key: v.key}
	lines := bufio.NewReaderSize(v.reader(ctx), maxAuditLine)
	for {
		line, err := lines.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			return v.checkEnd(&c)
		}
		if err != nil && err != io.EOF && !errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("read audit log: %w", err)
		}
		entry, wrong := c.next(bytes.TrimSuffix(line, []byte("\n")))
		if wrong == "" && err == io.EOF {
			wrong = "is cut"
		}
		if wrong != "" {
			return v.bad(c.count+1, wrong)
		}
		each(entry)
	}
}

func (v *logView) checkEnd(c *chain) error {
	switch {
	case c.count < v.count:
		return v.bad(c.count+1, fmt.Sprintf("is missing: the log ends there, of %d records", v.count))
	case c.count > v.count || !bytes.Equal(c.mac, v.mac):
		return v.bad(c.count, "is not the one with which the log ends")
	}
	return nil
}

func (v *logView) bad(number uint64, wrong string) error {
	return &keymgr.Error{
		Code: CodeAudit,
		Hint: "the records before it are authentic; look for who could write to " + v.dir + ", and compare with a backup",
		Err:  fmt.Errorf("read %s: record %d %s: %w", filepath.Join(v.dir, auditFile), number, wrong, keymgr.ErrCorrupt),
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
