package local

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

const (
	// ResultOK is the result of a call that did what it was asked.
	ResultOK = "ok"
	// resultFailed is that of a failure which has no code.
	resultFailed = "Failed"
	// Itself is the principal of what the KMS does of its own accord, when it is due.
	Itself = "kms"

	maxAuditText = 256 // bytes of a name that a caller made up
)

// Entry is one call in the audit log.
type Entry struct {
	Number    uint64    `json:"number"` // from 1, without gaps
	Time      time.Time `json:"time"`
	Principal string    `json:"principal"`
	Operation string    `json:"operation"`
	// Key is the key's id, or the name that was asked for where there is no such key.
	Key     string `json:"key,omitempty"`
	Version uint32 `json:"version,omitempty"`
	// ToKey and ToVersion are where ReEncrypt put the data key.
	ToKey     string         `json:"to_key,omitempty"`
	ToVersion uint32         `json:"to_version,omitempty"`
	Context   keymgr.Context `json:"context,omitempty"`
	// Detail is what else was asked: an alias, a principal, a date.
	Detail string `json:"detail,omitempty"`
	// Result is ResultOK or the code of the error.
	Result string `json:"result"`
}

// auditLine is an entry as it is stored, on a line of its own.
type auditLine struct {
	Entry
	// MAC covers the line before and this entry.
	MAC []byte `json:"mac"`
}

// auditHead is the end of the log. It is part of the index.
type auditHead struct {
	Count uint64 `json:"count"`
	MAC   []byte `json:"mac"` // of the last line
	// Durable is the length of the log that has been synced; behind it stands Tail.
	Durable int64             `json:"durable"`
	Tail    []json.RawMessage `json:"tail"`
}

// IsZero: nothing was recorded yet.
func (h auditHead) IsZero() bool { return h.Count == 0 }

func (h *auditHead) consistent() bool {
	return h.Durable >= 0 && uint64(len(h.Tail)) <= h.Count && (h.Count > 0) == (len(h.MAC) == sha256.Size)
}

// tail is the bytes that stand behind the durable part of the log.
func (h *auditHead) tail() []byte {
	var b []byte
	for _, line := range h.Tail {
		b = append(append(b, line...), '\n')
	}
	return b
}

// add chains an entry to the log's end.
func (h *auditHead) add(key []byte, e Entry) error {
	e.Number = h.Count + 1
	mac, err := e.mac(key, h.MAC)
	if err != nil {
		return err
	}
	line, err := json.Marshal(auditLine{e, mac})
	if err != nil {
		return fmt.Errorf("encode audit record: %w", err)
	}
	h.Count, h.MAC, h.Tail = e.Number, mac, append(h.Tail, line)
	return nil
}

// mac authenticates an entry and all before it.
func (e *Entry) mac(key, before []byte) ([]byte, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode audit record: %w", err)
	}
	m := hmac.New(sha256.New, key)
	m.Write(before)
	m.Write(body)
	return m.Sum(nil), nil
}

// auditKey is derived from the root key. It opens nothing; whoever has the root key
// can make it.
func auditKey(root *secret.Buffer) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, root.Bytes(), nil, "sealblk KMS audit 1", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive audit key: %w", err)
	}
	return key, nil
}

// parseAuditLine accepts exactly what add writes. The string is what is wrong, "" if
// nothing is.
func parseAuditLine(line []byte) (auditLine, string) {
	var l auditLine
	if err := decodeStrictly(line, &l); err != nil {
		return auditLine{}, "does not parse"
	}
	if again, err := json.Marshal(l); err != nil || !bytes.Equal(again, line) {
		return auditLine{}, "is not in the form in which it was written"
	}
	return l, ""
}

// chain follows the log from its first line.
type chain struct {
	key   []byte
	count uint64
	mac   []byte
}

// next checks one more line. The string is what is wrong with it, "" if nothing is.
func (c *chain) next(line []byte) (Entry, string) {
	l, wrong := parseAuditLine(line)
	if wrong != "" {
		return Entry{}, wrong
	}
	if l.Number != c.count+1 {
		return Entry{}, fmt.Sprintf("is missing: record %d stands in its place", l.Number)
	}
	want, err := l.mac(c.key, c.mac)
	if err != nil || !hmac.Equal(want, l.MAC) {
		return Entry{}, "was altered, or does not belong there"
	}
	c.count, c.mac = l.Number, l.MAC
	return l.Entry, ""
}

// clipped keeps what a caller made up from filling the log.
func clipped(s string) string { return s[:min(len(s), maxAuditText)] }
