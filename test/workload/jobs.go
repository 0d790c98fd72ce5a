package workload

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"sealblk/test/guest"
)

// scale is how much is done.
type scale struct {
	fio          time.Duration // for each profile
	ramp         time.Duration // before it
	files        int           // in the tarball
	synced       int           // small files that are synced one by one
	transactions int           // of the database
	lookups      int
	repeats      int // of all this in each round, on the same disks: what disturbs the machine comes and goes in seconds
}

var (
	full  = scale{fio: 700 * time.Millisecond, ramp: 100 * time.Millisecond, files: 600, synced: 100, transactions: 60, lookups: 200, repeats: 3}
	quick = scale{fio: 300 * time.Millisecond, ramp: 50 * time.Millisecond, files: 200, synced: 25, transactions: 20, lookups: 50, repeats: 2}
)

// Where the guest has its inputs.
const (
	tarball     = "/data.tar"
	schema      = "/schema.sql"
	transaction = "/transactions.sql"
	lookup      = "/lookups.sql"
)

func (s *scale) guestOptions() (guest.Options, error) {
	archive, err := makeTarball(s.files)
	if err != nil {
		return guest.Options{}, fmt.Errorf("make tarball: %w", err)
	}
	return guest.Options{Programs: []string{"fio", "sqlite3"}, Files: map[string][]byte{
		tarball:     archive,
		schema:      []byte(schemaSQL),
		transaction: []byte(transactionsSQL(s.transactions)),
		lookup:      []byte(lookupsSQL(s.lookups)),
	}}, nil
}

// step is a job on a disk whose time the guest takes.
type step struct {
	name, unit          string
	count               int    // what the job does so many of
	before, what, after string // shell; only the second part is timed
}

func (s *scale) steps() []step {
	mount, umount := "mount $disk /mnt", "umount /mnt"
	return []step{
		{"mkfs.ext4", "1/s", 1, "", "/bin/mke2fs -q -F -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 $disk", ""},
		{"untar", "files/s", s.files, mount, "tar -xf " + tarball + " -C /mnt && " + umount, ""},
		{"fsync small files", "files/s", s.synced, mount + " && mkdir /mnt/synced", syncedFiles(s.synced), umount},
		{"rm", "files/s", s.files + s.synced, mount, "rm -r /mnt/* && " + umount, ""},
		{"sqlite transactions", "1/s", s.transactions, mount + " && /bin/sqlite3 /mnt/db <" + schema + " && sync", sqlite(transaction), umount},
		{"sqlite cold lookups", "1/s", s.lookups, mount, sqlite(lookup), "rm /mnt/db && " + umount},
	}
}

// syncedFiles makes small files, and makes each durable before the next.
func syncedFiles(n int) string {
	return fmt.Sprintf("/bin/fio --name=fsync --directory=/mnt/synced --nrfiles=%d --filesize=4k --rw=write --bs=4k --fsync=1"+
		" --openfiles=1 --create_on_open=1 --file_service_type=sequential --fallocate=none --ioengine=psync --thread >/dev/null", n)
}

func sqlite(script string) string { return "/bin/sqlite3 /mnt/db <" + script + " >/dev/null" }

// script is the step as the guest runs it; it stops at the first failure.
func (s *step) script(disk string) string {
	result := fmt.Sprintf(`echo "{\"count\":%d,\"centiseconds\":$((ended-begun))}"`, s.count)
	lines := []string{s.before, "begun=$(now)", s.what, "ended=$(now)", s.after, result}
	var b strings.Builder
	b.WriteString("now() { read -r up rest </proc/uptime; echo \"${up%.*}${up#*.}\"; }\ndisk=" + disk + "\n")
	for _, line := range lines {
		if line != "" {
			b.WriteString("{ " + line + "; } || exit\n")
		}
	}
	return b.String()
}

// timedRate reads the line that a timed script ends with.
func timedRate(output string) (float64, error) {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	var r struct{ Count, Centiseconds float64 }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		return 0, fmt.Errorf("%w: %w", errNoResult, err)
	}
	if r.Count <= 0 || r.Centiseconds < 0 {
		return 0, fmt.Errorf("%w: %g in %g centiseconds", errNoResult, r.Count, r.Centiseconds)
	}
	return 100 * r.Count / max(r.Centiseconds, 1), nil // no time at all is less than the clock's tick
}

const filesPerDirectory = 50

// makeTarball packs files of 1 to 32 KiB, of bytes that do not compress.
func makeTarball(files int) ([]byte, error) {
	random := rand.New(rand.NewPCG(1, 2))
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := range files {
		data := make([]byte, 1024+random.IntN(31<<10))
		for k := range data {
			data[k] = byte(random.Uint32())
		}
		name := fmt.Sprintf("tree/d%02d/file%04d", i/filesPerDirectory, i)
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), w.Close()
}
