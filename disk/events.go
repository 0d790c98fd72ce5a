package disk

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sealblk/blockdev/luks"
	"sealblk/internal/atomicfile"
	"sealblk/keymgr"
)

// event is a line of events.log, which holds what the KMS of a disk's key keeps no
// record of.
type event struct {
	Time      time.Time `json:"time"`
	Operation string    `json:"operation"`
	Disk      string    `json:"disk"`
	ID        string    `json:"id"`
	Lineage   string    `json:"lineage"`
	KeyURI    string    `json:"key_uri"`
	Detail    string    `json:"detail"`
}

// record notes what happened to a disk's key: in the audit log of the key's KMS, if it
// is one that takes that, else in a log of the state directory.
func (c *Catalogue) record(ctx context.Context, operation string, r Record, uri, detail string) error {
	detail = "disk " + r.Name + ": " + detail
	if audit, ok := c.keys.(keymgr.Recorder); ok && uri != "" {
		e := keymgr.Event{Operation: operation, URI: uri, Context: contextOf(r.Lineage), Detail: detail}
		if audit.Record(ctx, e) == nil {
			return nil // else the KMS keeps no log for others, or has gone
		}
	}
	line, err := json.Marshal(event{time.Now().UTC().Truncate(time.Millisecond), operation, r.Name, r.ID, r.Lineage, uri, detail})
	if err == nil {
		err = c.appendEvent(append(line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("record %s: %w", operation, err)
	}
	return nil
}

func (c *Catalogue) appendEvent(line []byte) error {
	path := filepath.Join(c.dir, "events.log")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(line); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return atomicfile.SyncDir(c.dir)
}

// maxQuoted keeps what is recorded with the name of a file within what a KMS takes
// ([keymgr.Event]), behind the longest name of a disk.
const maxQuoted = 128

// quoted is the name of a file on one line. Of a long one it is the end, which tells the
// file: an audit log would keep the beginning.
func quoted(file string) string {
	q := strconv.Quote(file)
	if len(q) <= maxQuoted {
		return q
	}
	const cut = "..."
	return cut + strings.ToValidUTF8(q[len(q)-maxQuoted+len(cut):], "")
}

// exported records that a disk's key is about to be written to a file, and for whom.
func (c *Catalogue) exported(ctx context.Context, r Record, t luks.Token, from slot, file string) error {
	what := fmt.Sprintf("data key exported by user %d to %s", os.Getuid(), quoted(file))
	if from == escrowSlot {
		return c.usedEscrow(ctx, r, t, what)
	}
	return c.record(ctx, keymgr.EventExport, r, t.KeyURI, what)
}

// usedEscrow records that a disk's key was taken out of escrow. Who cannot be recorded
// does not get it.
func (c *Catalogue) usedEscrow(ctx context.Context, r Record, t luks.Token, what string) error {
	return c.record(ctx, keymgr.EventEscrow, r, t.Escrow.KeyURI, what+" by its key in escrow, not by "+t.KeyURI)
}
