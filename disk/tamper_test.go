package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/keymgr/secret"
)

// scene is a catalogue with two encrypted disks, db and other, and a plain one.
type scene struct {
	t *testing.T
	*Catalogue
	first map[string][]byte
}

func newScene(t *testing.T) *scene {
	c := newCatalogue(t)
	mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true})
	mustCreate(t, c, CreateOptions{Name: "other", Encrypted: true})
	mustCreate(t, c, CreateOptions{Name: "plain"})
	return &scene{t, c, files(t, c.dir)}
}

// in is the scene in a subtest, which puts everything back in the end.
func (s *scene) in(t *testing.T) *scene {
	t.Cleanup(func() {
		for _, d := range differ(s.first, files(t, s.dir)) {
			_, name, _ := strings.Cut(d, ": ")
			path := filepath.Join(s.dir, name)
			err := os.RemoveAll(path)
			if data, ok := s.first[name]; ok {
				err = errors.Join(err, os.WriteFile(path, data, 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	return &scene{t, s.Catalogue, s.first}
}

func (s *scene) img(name string) string { return filepath.Join(s.dir, "volumes", name+".img") }

func (s *scene) read(path string) []byte {
	s.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

func (s *scene) write(path string, data []byte) {
	s.t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// record changes what db's record says.
func (s *scene) record(change func(r map[string]any)) {
	s.t.Helper()
	var r map[string]any
	if err := json.Unmarshal(s.read(s.recordPath("db")), &r); err != nil {
		s.t.Fatal(err)
	}
	change(r)
	data, err := json.Marshal(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(s.recordPath("db"), data)
}

// plainRecord makes db's record call it plain, in a way that is valid.
func (s *scene) plainRecord(size int64) {
	s.record(func(r map[string]any) {
		r["encrypted"], r["key_id"], r["key_uri"], r["lineage"], r["size_bytes"] = false, "", "", "", size
		delete(r, "key_version")
		delete(r, "key_scope_blocks")
	})
}

// Places in the binary header (LUKS2 On-Disk Format, "Binary Header").
const (
	binaryHeader = 4096
	offSeqid     = 16
	offCsum      = 448
	sizeCsum     = 64
)

// header changes the JSON text of the given copies of db's header, and makes their
// checksums good again: what an attacker can write, not what an accident does.
func (s *scene) header(change func(text string) string, copies ...int) {
	s.t.Helper()
	img := s.read(s.img("db"))
	for _, n := range copies {
		c := img[n*headerCopy:][:headerCopy]
		text := string(bytes.TrimRight(c[binaryHeader:], "\x00"))
		changed := change(text)
		if changed == text {
			s.t.Fatalf("copy %d was not changed:\n%s", n, text)
		}
		clear(c[binaryHeader:])
		copy(c[binaryHeader:], changed)
		seal(c)
	}
	s.write(s.img("db"), img)
}

func seal(c []byte) {
	clear(c[offCsum:][:sizeCsum])
	sum := sha256.Sum256(c)
	copy(c[offCsum:], sum[:])
}

// text is the JSON text of a disk's header.
func (s *scene) text(name string) string {
	return string(bytes.TrimRight(s.read(s.img(name))[binaryHeader:headerCopy], "\x00"))
}

// part is the raw JSON of a part of a disk's header.
func (s *scene) part(name string, path ...string) string {
	s.t.Helper()
	raw := json.RawMessage(s.text(name))
	for _, p := range path {
		var o map[string]json.RawMessage
		if err := json.Unmarshal(raw, &o); err != nil || o[p] == nil {
			s.t.Fatalf("no %s in %s", p, raw)
		}
		raw = o[p]
	}
	return string(raw)
}

// transplant puts a part of the other disk's header into both copies of db's.
func (s *scene) transplant(path ...string) {
	from, to := s.part("other", path...), s.part("db", path...)
	s.header(func(text string) string { return strings.Replace(text, to, from, 1) }, 0, 1)
}

func (s *scene) replace(old, new string) {
	s.header(func(text string) string { return strings.ReplaceAll(text, old, new) }, 0, 1)
}

// segment changes only what the header says of the place of the data.
func (s *scene) segment(old, new string) {
	seg := s.part("db", "segments", "0")
	s.replace(seg, strings.Replace(seg, old, new, 1))
}

// tamperings are things that someone who can write to the state directory may do to db.
// None of them may lead to a byte being served.
var tamperings = map[string]func(*scene){
	"record: not encrypted":        func(s *scene) { s.plainRecord(diskSize) },
	"record: not encrypted, whole": func(s *scene) { s.plainRecord(diskSize + 16<<20) },
	"record: not encrypted, one bad copy": func(s *scene) {
		s.plainRecord(diskSize)
		s.corrupt(100)
	},
	"record: not encrypted, two bad copies": func(s *scene) {
		s.plainRecord(diskSize)
		s.corrupt(100, headerCopy+100)
	},
	"record: not encrypted, no magic": func(s *scene) {
		s.plainRecord(diskSize)
		s.corrupt(0, headerCopy)
	},
	"record: not encrypted, local": func(s *scene) {
		s.plainRecord(diskSize)
		s.record(func(r map[string]any) { r["category"] = "local" })
	},
	"record: encrypted without a key": func(s *scene) { s.record(func(r map[string]any) { r["key_uri"] = "" }) },
	"record: larger":                  func(s *scene) { s.record(func(r map[string]any) { r["size_bytes"] = 2 * diskSize }) },
	"record: larger than anything":    func(s *scene) { s.record(func(r map[string]any) { r["size_bytes"] = int64(1) << 62 }) },
	"record: another sector size":     func(s *scene) { s.record(func(r map[string]any) { r["sector_size"] = 4096 }) },
	"record: another lineage":         func(s *scene) { s.record(func(r map[string]any) { r["lineage"] = newID() }) },
	"record: another id":              func(s *scene) { s.record(func(r map[string]any) { r["id"] = newID() }) },
	"record: another id, and a larger header": func(s *scene) {
		s.cut(16<<20 + 2*diskSize)
		s.replace(fmt.Sprint(diskSize), fmt.Sprint(2*diskSize))
		s.record(func(r map[string]any) { r["id"] = newID() })
	},
	"record: another name":        func(s *scene) { s.record(func(r map[string]any) { r["name"] = "other" }) },
	"record: another disk's file": func(s *scene) { s.backend("file:" + s.img("other")) },
	"record: a plain disk's file": func(s *scene) { s.backend("file:" + s.img("plain")) },
	"record: a device":            func(s *scene) { s.backend("file:/dev/zero") },
	"record: a directory":         func(s *scene) { s.backend("file:" + s.dir) },
	"record: no such file":        func(s *scene) { s.backend("file:/nowhere") },
	"record: memory":              func(s *scene) { s.backend("memory:") },
	"record: null":                func(s *scene) { s.backend("null:") },
	"record: other's":             func(s *scene) { s.write(s.recordPath("db"), s.read(s.recordPath("other"))) },
	"record: half":                func(s *scene) { s.write(s.recordPath("db"), s.read(s.recordPath("db"))[:100]) },
	"record: empty":               func(s *scene) { s.write(s.recordPath("db"), nil) },
	"record: a new field":         func(s *scene) { s.record(func(r map[string]any) { r["cipher"] = "null" }) },

	"header: another disk's token": func(s *scene) { s.transplant("tokens", "0") },
	"header: another disk's wrapped key": func(s *scene) {
		s.transplant("tokens", "0", "wrapped_key")
	},
	"header: another disk's context": func(s *scene) { s.transplant("tokens", "0", "context") },
	"header: another disk's digest":  func(s *scene) { s.transplant("digests", "0", "digest") },
	"header: another disk's salt":    func(s *scene) { s.transplant("digests", "0", "salt") },
	"header: another disk's, whole":  func(s *scene) { s.graft("other") },
	"header: larger":                 func(s *scene) { s.replace(fmt.Sprint(diskSize), fmt.Sprint(2*diskSize)) },
	"header: larger, without a place for it": func(s *scene) {
		s.replace(fmt.Sprint(diskSize), fmt.Sprint(2*diskSize))
		s.cut(16<<20 + 2*diskSize - 512)
	},
	"header: smaller":         func(s *scene) { s.replace(fmt.Sprint(diskSize), fmt.Sprint(diskSize/2)) },
	"header: smaller segment": func(s *scene) { s.segment(fmt.Sprint(diskSize), "512") },
	"header: segment to the end, which is near": func(s *scene) {
		s.segment(fmt.Sprint(diskSize), "dynamic")
		s.cut(16<<20 + diskSize - 512)
	},
	"header: data elsewhere":           func(s *scene) { s.replace(`"offset":"16777216"`, `"offset":"16778240"`) },
	"header: data in the header":       func(s *scene) { s.replace(`"offset":"16777216"`, `"offset":"0"`) },
	"header: another first sector":     func(s *scene) { s.replace(`"iv_tweak":"0"`, `"iv_tweak":"8"`) },
	"header: another cipher":           func(s *scene) { s.replace("aes-xts-plain64", "cipher_null-ecb") },
	"header: another sector size":      func(s *scene) { s.replace(`"sector_size":512`, `"sector_size":4096`) },
	"header: no token":                 func(s *scene) { s.replace(`"type":"sealblk"`, `"type":"foreign"`) },
	"header: first copy newer":         func(s *scene) { s.newer(0) },
	"header: second copy newer":        func(s *scene) { s.newer(1) },
	"header: both copies bad":          func(s *scene) { s.corrupt(100, headerCopy+100) },
	"header: zeros":                    func(s *scene) { s.zero(2 * headerCopy) },
	"header: zeros, all of its area":   func(s *scene) { s.zero(16 << 20) },
	"header: random, second copy zero": func(s *scene) { s.corrupt(0, 7, 100, headerCopy, headerCopy+7) },

	"file: one byte short":        func(s *scene) { s.cut(16<<20 + diskSize - 1) },
	"file: ends with the header":  func(s *scene) { s.cut(16 << 20) },
	"file: ends in the header":    func(s *scene) { s.cut(2*headerCopy - 1) },
	"file: ends in the first 4 K": func(s *scene) { s.cut(4095) },
	"file: empty":                 func(s *scene) { s.cut(0) },
	"file: gone":                  func(s *scene) { s.become(func(string) error { return nil }) },
	"file: a directory":           func(s *scene) { s.become(func(p string) error { return os.Mkdir(p, 0o700) }) },
	"file: a pipe":                func(s *scene) { s.become(func(p string) error { return unix.Mkfifo(p, 0o600) }) },
	"file: a link to other's":     func(s *scene) { s.become(func(p string) error { return os.Symlink(s.img("other"), p) }) },
	"file: a link to itself":      func(s *scene) { s.become(func(p string) error { return os.Symlink(p, p) }) },
	"file: other's":               func(s *scene) { s.write(s.img("db"), s.read(s.img("other"))) },
	"file: plain":                 func(s *scene) { s.write(s.img("db"), bytes.Repeat([]byte("data"), (16<<20+diskSize)/4)) },
}

func (s *scene) backend(uri string) { s.record(func(r map[string]any) { r["backend"] = uri }) }

// corrupt flips bits of db's file.
func (s *scene) corrupt(at ...int) {
	img := s.read(s.img("db"))
	for _, i := range at {
		img[i] ^= 0x55
	}
	s.write(s.img("db"), img)
}

func (s *scene) zero(n int) {
	img := s.read(s.img("db"))
	clear(img[:n])
	s.write(s.img("db"), img)
}

func (s *scene) cut(size int64) {
	if err := os.Truncate(s.img("db"), size); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) become(make func(path string) error) {
	if err := errors.Join(os.Remove(s.img("db")), make(s.img("db"))); err != nil {
		s.t.Fatal(err)
	}
}

// graft puts another disk's whole header in front of db's data.
func (s *scene) graft(from string) {
	img := s.read(s.img("db"))
	copy(img[:2*headerCopy], s.read(s.img(from)))
	s.write(s.img("db"), img)
}

// newer makes one copy newer than the other, and another disk's.
func (s *scene) newer(n int) {
	img := s.read(s.img("db"))
	c := img[n*headerCopy:][:headerCopy]
	theirs := s.read(s.img("other"))[n*headerCopy:][:headerCopy]
	copy(c, theirs)
	binary.BigEndian.PutUint64(c[offSeqid:], 1000)
	seal(c)
	s.write(s.img("db"), img)
}

// TestTamperedDisk: an error, no device, nothing altered, no key left in memory, none
// but the right one exported; the other disks are served as before. Deleting it then
// harms no other disk and no other file.
func TestTamperedDisk(t *testing.T) {
	stage := newScene(t)
	for name, tamper := range some(tamperings) {
		t.Run(name, func(t *testing.T) {
			s := stage.in(t)
			_, _, right, err := s.keyIn(t.Context(), "db", mainSlot)
			if err != nil {
				t.Fatal(err)
			}
			defer right.Destroy()
			tamper(s)
			before := files(t, s.dir)
			live, _ := secret.Live()
			s.notServed()
			s.checkFails()
			if _, _, dk, err := s.keyIn(t.Context(), "db", mainSlot); err == nil {
				if !dk.Equal(right) {
					t.Error("a wrong key was exported")
				}
				dk.Destroy()
			}
			s.List()
			if now, _ := secret.Live(); now != live {
				t.Errorf("%d secrets, before %d", now, live)
			}
			if d := differ(before, files(t, s.dir)); len(d) > 0 {
				t.Errorf("altered: %v", d)
			}
			s.deleteHarmsNone(before)
			wantWhole(t, s.Catalogue, "other")
			wantWhole(t, s.Catalogue, "plain")
		})
	}
}

func (s *scene) notServed() {
	for _, o := range []OpenOptions{{}, {ReadOnly: true}} {
		if d, err := s.Open(s.t.Context(), "db", o); err == nil {
			d.Close()
			s.t.Errorf("served (read-only: %v)", o.ReadOnly)
		} else if strings.Contains(err.Error(), "\n") {
			s.t.Errorf("an error of several lines: %q", err)
		}
	}
}

func (s *scene) checkFails() {
	found, err := s.Check(s.t.Context(), "db")
	for _, f := range found {
		if f.Result == Failed && f.Err != nil {
			return
		}
	}
	if err == nil {
		s.t.Errorf("check finds nothing wrong: %v", found)
	}
}

func (s *scene) deleteHarmsNone(before map[string][]byte) {
	err := s.Delete("db")
	for _, d := range differ(before, files(s.t, s.dir)) {
		if err != nil || !strings.HasSuffix(d, "/db.json") && !strings.HasSuffix(d, "/db.img") {
			s.t.Errorf("delete: %s (error: %v)", d, err)
		}
	}
}

// TestImportOfTamperedHeader: what describes itself wrongly is not registered. A size
// or sector size that is wrong everywhere in the header alike cannot be told without
// the record: the data key is the right one, and nothing but the owner's data is shown.
func TestImportOfTamperedHeader(t *testing.T) {
	cannotTell := map[string]bool{"header: smaller": true, "header: another sector size": true}
	stage := newScene(t)
	for name, tamper := range some(tamperings) {
		if strings.HasPrefix(name, "record:") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			s := stage.in(t)
			if err := os.Remove(s.recordPath("db")); err != nil {
				t.Fatal(err)
			}
			tamper(s)
			before := files(t, s.dir)
			live, _ := secret.Live()
			r, err := s.Import(t.Context(), "db", "file:"+s.img("db"))
			if err == nil && !cannotTell[name] {
				t.Errorf("registered: %+v", r)
			}
			if now, _ := secret.Live(); now != live {
				t.Errorf("%d secrets, before %d", now, live)
			}
			for _, d := range differ(before, files(t, s.dir)) {
				if err != nil || d != "new: disks/db.json" {
					t.Errorf("%s", d)
				}
			}
		})
	}
}

// mayDiffer are members of a token that a record need not repeat: a disk is imported under
// any name, and the scope of a key may be larger in the header, from which it grows.
var mayDiffer = regexp.MustCompile(`"name":"[^"]*"|"key_scope_blocks":"[^"]*"`)

// TestEveryByteOfTheToken alters each byte of both copies of the token, and makes the
// checksums good again, which takes an attacker: the disk is not served.
func TestEveryByteOfTheToken(t *testing.T) {
	s := newScene(t)
	s.eachByte(s.part("db", "tokens", "0"), func(what string) {
		if d, err := s.Open(t.Context(), "db", OpenOptions{}); err == nil {
			d.Close()
			t.Errorf("served with %s", what)
		}
	})
	wantWhole(t, s.Catalogue, "db")
}

// TestEveryByteOfTheEscrow does that with the part of the token that only a check of the
// disk looks at while its own key opens it, and warns.
func TestEveryByteOfTheEscrow(t *testing.T) {
	site := newSite(t)
	escrow := strings.Replace(newCMK(t, site.operator(t, "other")), "local:", "other:", 1)
	mustCreate(t, site.Catalogue, CreateOptions{Name: "db", EscrowKey: escrow})
	s := &scene{t: t, Catalogue: site.Catalogue}
	s.eachByte(s.part("db", "tokens", "0", "escrow"), func(what string) {
		found, err := s.Check(t.Context(), "db")
		if err == nil && !slices.ContainsFunc(found, func(f Finding) bool { return f.Result != OK }) {
			t.Errorf("check finds nothing wrong with %s", what)
		}
	})
	wantWhole(t, s.Catalogue, "db")
}

// eachByte calls f with one bit of each byte of a part of db's token altered, in both
// copies of the header, whose checksums are good, and puts the good ones back.
func (s *scene) eachByte(part string, f func(what string)) {
	s.t.Helper()
	head := s.read(s.img("db"))[:2*headerCopy]
	start := bytes.Index(head[binaryHeader:headerCopy], []byte(part))
	img, err := os.OpenFile(s.img("db"), os.O_WRONLY, 0)
	if err != nil || start < 0 {
		s.t.Fatal(start, err)
	}
	defer img.Close()
	step := 1
	if testing.Short() {
		step = 13
	}
	free := mayDiffer.FindAllStringIndex(part, -1)
	for i := 0; i < len(part); i += step {
		if slices.ContainsFunc(free, func(m []int) bool { return m[0] <= i && i < m[1] }) {
			continue
		}
		bad := bytes.Clone(head)
		for _, c := range [][]byte{bad[:headerCopy], bad[headerCopy:]} {
			c[binaryHeader+start+i] ^= 1
			seal(c)
		}
		if _, err := img.WriteAt(bad, 0); err != nil {
			s.t.Fatal(err)
		}
		f(fmt.Sprintf("byte %d altered: …%s…", i, part[max(i-20, 0):min(i+20, len(part))]))
	}
	if _, err := img.WriteAt(head, 0); err != nil {
		s.t.Fatal(err)
	}
}
