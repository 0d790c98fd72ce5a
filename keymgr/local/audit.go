package local

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

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
	// maxAuditLine is the length that no record reaches, as its names and its context are
	// bounded. Who checks a log keeps no more of it in memory, however damaged it is.
	maxAuditLine = 1 << 20
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
	// MAC covers the MAC of the line before and this entry, byte for byte.
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

// add chains an entry to the log's end. One that would not be read back is refused:
// it would spoil the log for good.
func (h *auditHead) add(key []byte, e Entry) error {
	e.Number = h.Count + 1
	e.tidy()
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode audit record: %w", err)
	}
	mac := auditMAC(key, h.MAC, body)
	line := append(body[:len(body)-1], auditEnd(mac)...)
	if _, wrong := parseAuditLine(line); wrong != "" {
		return fmt.Errorf("encode audit record: it %s", wrong)
	}
	h.Count, h.MAC, h.Tail = e.Number, mac, append(h.Tail, line)
	return nil
}

// tidy makes text of what callers made up: JSON has no other bytes, and the log shall
// not be filled by one call. The context is text, and short, or it is refused.
func (e *Entry) tidy() {
	for _, s := range []*string{&e.Principal, &e.Operation, &e.Key, &e.ToKey, &e.Detail, &e.Result} {
		*s = clipped(*s)
	}
}

// auditEnd is the end of a line, in place of the brace that ends its entry.
func auditEnd(mac []byte) string {
	return `,"mac":"` + base64.StdEncoding.EncodeToString(mac) + `"}`
}

// auditMAC authenticates an entry, as it is written, and all before it.
func auditMAC(key, before, body []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(before)
	m.Write(body)
	return m.Sum(nil)
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

// auditBody is the entry in a line, without the MAC: the bytes that it covers.
func auditBody(line []byte) []byte {
	end := len(line) - len(auditEnd(make([]byte, sha256.Size)))
	return append(bytes.Clone(line[:end]), '}')
}

// parseAuditLine takes a line apart. That its entry is what add wrote, to the byte, is
// for the MAC to say. The string is what is wrong, "" if nothing is.
func parseAuditLine(line []byte) (auditLine, string) {
	if len(line) >= maxAuditLine {
		return auditLine{}, "is longer than any record"
	}
	var l auditLine
	if err := decodeStrictly(line, &l); err != nil {
		return auditLine{}, "does not parse"
	}
	if len(l.MAC) != sha256.Size || !bytes.HasSuffix(line, []byte(auditEnd(l.MAC))) {
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
	if !hmac.Equal(auditMAC(c.key, c.mac, auditBody(line)), l.MAC) {
		return Entry{}, "was altered, or does not belong there"
	}
	c.count, c.mac = l.Number, l.MAC
	return l.Entry, ""
}

// clipped is valid UTF-8 of at most maxAuditText bytes.
func clipped(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	end := min(len(s), maxAuditText)
	for end < len(s) && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
