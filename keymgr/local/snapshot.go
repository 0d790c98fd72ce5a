package local

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"sealblk/keymgr/secret"
)

// snapshot is a KMS as it was at one moment, for a backup. Index and records are in
// memory, as every call has them there; the audit log has no limit and is not.
type snapshot struct {
	opening   []byte // of the backup, with the root key
	files     []storedFile
	log       *logView
	materials uint64 // how many the KMS had made
}

type storedFile struct {
	name string
	data []byte
}

// snapshot takes all of the folder. Its keys must be whole: a backup of a damaged KMS
// would replace a good one. The caller closes its log.
func (t *session) snapshot(key *secret.Buffer, header []byte) (*snapshot, error) {
	if err := t.checkKeys(); err != nil {
		return nil, err
	}
	s := &snapshot{materials: t.index.Materials}
	for _, name := range t.smallFiles() {
		data, err := t.read(name, maxFile)
		if err != nil {
			return nil, err
		}
		s.files = append(s.files, storedFile{name, data})
	}
	root, err := seal(key, t.root.Bytes(), header)
	if err != nil {
		return nil, fmt.Errorf("seal root key: %w", err)
	}
	s.opening = append(header, root...)
	s.log, err = t.viewAudit()
	return s, err
}

// smallFiles are the files of the folder that a backup holds, but for the audit log.
func (t *session) smallFiles() []string {
	names := []string{indexFile}
	for _, id := range t.index.ids() {
		names = append(names, recordFile(id))
	}
	return names
}

// write writes the backup.
func (s *snapshot) write(ctx context.Context, w io.Writer, key *secret.Buffer) error {
	aead, err := newAEAD(key)
	if err != nil {
		return err
	}
	if _, err := w.Write(s.opening); err != nil {
		return err
	}
	chunks := newChunkWriter(w, aead, s.opening)
	for _, f := range s.files {
		if err := writeFileTo(chunks, f.name, int64(len(f.data)), bytes.NewReader(f.data)); err != nil {
			return err
		}
	}
	if s.log.size > 0 {
		if err := writeFileTo(chunks, auditFile, s.log.size, s.log.reader(ctx)); err != nil {
			return err
		}
	}
	return chunks.finish()
}

// writeFileTo writes a file as it stands in a backup.
func writeFileTo(w io.Writer, name string, size int64, content io.Reader) error {
	head := append([]byte{byte(len(name))}, name...)
	if _, err := w.Write(binary.BigEndian.AppendUint64(head, uint64(size))); err != nil {
		return err
	}
	n, err := io.CopyN(w, content, size)
	if ended(err) {
		return fmt.Errorf("%s was cut to %d of %d bytes meanwhile", name, n, size)
	}
	return err
}

// eachFile gives the files in the content of a backup to put, which reads each of them to
// its end.
func eachFile(r io.Reader, put putFunc) error {
	for {
		name, size, err := readFileHead(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := put(name, size, io.LimitReader(r, size)); err != nil {
			return err
		}
	}
}

// readFileHead fails with io.EOF itself where there is no other file.
func readFileHead(r io.Reader) (name string, size int64, err error) {
	var length [1]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return "", 0, err
	}
	head := make([]byte, int(length[0])+8)
	if _, err := io.ReadFull(r, head); ended(err) {
		return "", 0, badBackup("its content does not parse")
	} else if err != nil {
		return "", 0, err
	}
	n := binary.BigEndian.Uint64(head[length[0]:])
	if n > math.MaxInt64 {
		return "", 0, badBackup("its content does not parse")
	}
	return string(head[:length[0]]), int64(n), nil
}

// unpackFile stores a file of a backup. What is read whole later has the limit that it
// has then; the audit log is as long as it is.
func unpackFile(f files, name string, size int64, content io.Reader) error {
	id, isRecord := strings.CutSuffix(strings.TrimPrefix(name, "keys/"), ".json")
	isRecord = isRecord && validID(id) && name == recordFile(id)
	if name != indexFile && name != auditFile && !isRecord {
		return badBackup("it holds a file that is none of a KMS")
	}
	if name != auditFile && size > maxFile {
		return badBackup(fmt.Sprintf("it holds %s of more than %d bytes", name, maxFile))
	}
	there, err := f.exists(name)
	if err != nil {
		return err
	}
	if there {
		return badBackup("it holds " + name + " twice")
	}
	return f.replace(name, func(w *os.File) error {
		_, err := io.CopyN(w, content, size)
		if ended(err) {
			return badBackup("it ends within " + name)
		}
		return err
	})
}
