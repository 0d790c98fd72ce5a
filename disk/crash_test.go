package disk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/keymgr/secret"
)

// childMark, as first argument, makes the test binary a process that does one thing to
// a catalogue: DIR STEP OPERATION. It is killed at its STEP-th change to files.
const childMark = "as-a-child"

var operations = map[string]func(ctx context.Context, c *Catalogue) error{
	"create encrypted": func(ctx context.Context, c *Catalogue) error {
		_, err := c.Create(ctx, CreateOptions{Name: "db", SizeBytes: diskSize, Encrypted: true, Backend: "file:" + c.dir + "/db.img"})
		return err
	},
	"create plain": func(ctx context.Context, c *Catalogue) error {
		_, err := c.Create(ctx, CreateOptions{Name: "db", SizeBytes: diskSize, Backend: "file:" + c.dir + "/db.img"})
		return err
	},
	"create without plaintext": func(ctx context.Context, c *Catalogue) error {
		_, err := c.Create(ctx, CreateOptions{Name: "db", SizeBytes: diskSize, NoPlaintext: true, Backend: "file:" + c.dir + "/db.img"})
		return err
	},
	"create without a file": func(ctx context.Context, c *Catalogue) error {
		_, err := c.Create(ctx, CreateOptions{Name: "db", SizeBytes: diskSize, Encrypted: true, Backend: "memory:"})
		return err
	},
	"delete": func(_ context.Context, c *Catalogue) error { return c.Delete("db") },
	"import": func(ctx context.Context, c *Catalogue) error {
		_, err := c.Import(ctx, "db", "file:"+c.dir+"/db.img")
		return err
	},
	"hold": func(ctx context.Context, c *Catalogue) error {
		d, err := c.Open(ctx, "db", OpenOptions{})
		if err != nil {
			return err
		}
		defer d.Close()
		if err := d.Publish(Runtime{PID: os.Getpid(), SocketPath: "/s"}); err != nil {
			return err
		}
		fmt.Println("held")
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	},
}

func child(args []string) int {
	c, stop, err := openCatalogue(args[0])
	if err == nil {
		defer stop()
		left, _ := strconv.Atoi(args[1])
		c.step = func(string) error {
			if left--; left == 0 {
				unix.Kill(os.Getpid(), unix.SIGKILL)
				select {}
			}
			return nil
		}
		err = operations[args[2]](context.Background(), c)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func childCommand(t *testing.T, dir string, step int, operation string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(t.Context(), program, childMark, dir, strconv.Itoa(step), operation)
}

// killedAt runs an operation in a process that is killed at its n-th step; false when
// the operation has fewer.
func killedAt(t *testing.T, dir string, n int, operation string) bool {
	t.Helper()
	out, err := childCommand(t, dir, n, operation).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && !exit.Exited() {
		return true
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", operation, err, out)
	}
	return false
}

// bystander is a disk that no operation on another may touch.
func bystander(t *testing.T, c *Catalogue) map[string][]byte {
	t.Helper()
	mustCreate(t, c, CreateOptions{Name: "other", Encrypted: true})
	return files(t, c.dir)
}

// wantOnly fails if anything is there but what was before and the disk db.
func wantOnly(t *testing.T, before map[string][]byte, c *Catalogue) {
	t.Helper()
	for _, d := range differ(before, files(t, c.dir)) {
		switch strings.TrimPrefix(d, "new: ") {
		case "disks/db.json", "db.img", "headers/db.luks":
		default:
			t.Errorf("%s", d)
		}
	}
}

// creates are the ways to make the disk db.
func creates() []string {
	if testing.Short() {
		return []string{"create encrypted"}
	}
	return []string{"create encrypted", "create plain", "create without plaintext", "create without a file"}
}

func TestCreateKilledAtEveryStep(t *testing.T) {
	for _, create := range creates() {
		t.Run(create, func(t *testing.T) {
			c := newCatalogue(t)
			before := bystander(t, c)
			saw := map[bool]int{}
			for n, more := 1, true; more; n++ {
				more = killedAt(t, c.dir, n, create)
				there := c.registered("db")
				saw[there]++
				if there {
					wantWhole(t, c, "db")
				} else if _, err := c.Get("db"); !errors.Is(err, ErrNotFound) {
					t.Fatalf("step %d: %v", n, err)
				}
				// The name is not blocked, and another create cleans up.
				if err := operations[create](t.Context(), c); there != errors.Is(err, ErrExists) || !there && err != nil {
					t.Fatalf("step %d: created again: %v (it was there: %v)", n, err, there)
				}
				wantWhole(t, c, "db")
				if there { // what is left of its making goes with the next disk
					mustCreate(t, c, CreateOptions{Name: "next"})
					if err := c.Delete("next"); err != nil {
						t.Fatal(err)
					}
				}
				wantOnly(t, before, c)
				if err := c.Delete("db"); err != nil {
					t.Fatal(err)
				}
			}
			if saw[false] < 2 || saw[true] < 2 {
				t.Errorf("a crash left nothing %d times, a disk %d times", saw[false], saw[true])
			}
		})
	}
}

func TestDeleteKilledAtEveryStep(t *testing.T) {
	for _, create := range creates() {
		t.Run(create, func(t *testing.T) {
			c := newCatalogue(t)
			before := bystander(t, c)
			steps := 0
			for more := true; more; steps++ {
				if err := operations[create](t.Context(), c); err != nil {
					t.Fatal(err)
				}
				more = killedAt(t, c.dir, steps+1, "delete")
				if err := c.Delete("db"); err != nil && !errors.Is(err, ErrNotFound) {
					t.Fatalf("step %d: deleted again: %v", steps+1, err)
				}
				if left := differ(before, files(t, c.dir)); len(left) > 0 {
					t.Fatalf("step %d: %v", steps+1, left)
				}
				if err := operations[create](t.Context(), c); err != nil {
					t.Fatalf("step %d: the name is blocked: %v", steps+1, err)
				}
				if err := c.Delete("db"); err != nil {
					t.Fatal(err)
				}
			}
			if steps < 4 {
				t.Errorf("only %d steps", steps)
			}
		})
	}
}

// TestDeleteOfHalfMadeDisk: a create that was killed after the disk was there left a
// second name of its data, which must not outlive it.
func TestDeleteOfHalfMadeDisk(t *testing.T) {
	c := newCatalogue(t)
	before := bystander(t, c)
	for n := 1; ; n++ {
		more := killedAt(t, c.dir, n, "create plain")
		if c.registered("db") {
			if err := c.Delete("db"); err != nil {
				t.Fatal(err)
			}
			if left := differ(before, files(t, c.dir)); len(left) > 0 {
				t.Fatalf("step %d: %v", n, left)
			}
		}
		if !more {
			return
		}
	}
}

func TestImportKilledAtEveryStep(t *testing.T) {
	c := newCatalogue(t)
	if err := operations["create encrypted"](t.Context(), c); err != nil {
		t.Fatal(err)
	}
	record, err := os.ReadFile(c.recordPath("db"))
	if err != nil {
		t.Fatal(err)
	}
	img := c.dir + "/db.img"
	want := files(t, c.dir)["db.img"]
	for n, more := 1, true; more; n++ {
		if err := os.Remove(c.recordPath("db")); err != nil {
			t.Fatal(err)
		}
		more = killedAt(t, c.dir, n, "import")
		if !c.registered("db") {
			if _, err := c.Import(t.Context(), "db", "file:"+img); err != nil {
				t.Fatalf("step %d: %v", n, err)
			}
		}
		wantWhole(t, c, "db")
		found := files(t, c.dir)
		if string(found["disks/db.json"]) != string(record) || string(found["db.img"]) != string(want) {
			t.Fatalf("step %d: the disk or its record is another", n)
		}
	}
}

var errFault = errors.New("input/output error")

// TestFailedCreateLeavesNothing: whatever fails, before the disk is there, it is not
// there, and no key is left in memory.
func TestFailedCreateLeavesNothing(t *testing.T) {
	for _, create := range creates() {
		t.Run(create, func(t *testing.T) {
			c := newCatalogue(t)
			before := bystander(t, c)
			live, _ := secret.Live()
			for n := 1; ; n++ {
				left, failed := n, ""
				c.step = func(operation string) error {
					if left--; left == 0 {
						failed = operation
						return errFault
					}
					return nil
				}
				err := operations[create](t.Context(), c)
				c.step = nil
				if now, _ := secret.Live(); now != live {
					t.Fatalf("step %d: %d secrets, before %d", n, now, live)
				}
				if err == nil {
					wantWhole(t, c, "db")
					return // what fails after the disk is there, settles later
				}
				if !errors.Is(err, errFault) {
					t.Fatalf("step %d (%s): %v", n, failed, err)
				}
				if left := differ(before, files(t, c.dir)); len(left) > 0 {
					t.Fatalf("step %d (%s): %v", n, failed, left)
				}
			}
		})
	}
}

// TestCreateThatCannotBeTakenBack: the storage fails for good in the middle. When it is
// back, the name is free.
func TestCreateThatCannotBeTakenBack(t *testing.T) {
	c := newCatalogue(t)
	before := bystander(t, c)
	for n := 1; n <= 5; n++ {
		left := n
		c.step = func(string) error {
			if left--; left <= 0 {
				return errFault
			}
			return nil
		}
		if err := operations["create plain"](t.Context(), c); !errors.Is(err, errFault) {
			t.Fatal(err)
		}
		c.step = nil
		if err := operations["create plain"](t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if err := c.Delete("db"); err != nil {
			t.Fatal(err)
		}
		if left := differ(before, files(t, c.dir)); len(left) > 0 {
			t.Fatalf("step %d: %v", n, left)
		}
	}
}

// TestTornRecordsAreSwept: what a killed write of a record left goes when a disk is added
// or deleted; not that of a disk whose lock somebody has, who may be writing it.
func TestTornRecordsAreSwept(t *testing.T) {
	for _, what := range []string{"create", "delete", "import"} {
		t.Run(what, func(t *testing.T) {
			c := newCatalogue(t)
			mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true, Backend: "file:" + c.dir + "/db.img"})
			mustCreate(t, c, CreateOptions{Name: "busy"})
			if what == "import" {
				if err := os.Remove(c.recordPath("db")); err != nil {
					t.Fatal(err)
				}
			}
			l, err := c.acquire("busy")
			if err != nil {
				t.Fatal(err)
			}
			defer l.release()
			torn := map[string]bool{
				"disks/.db.json.1.tmp": false, "disks/.gone.json.2.tmp": false, "disks/.gone.new.3.tmp": false,
				"run/.db~1-1.json.4.tmp": false, "disks/.busy.json.5.tmp": true, "run/.busy~1-1.json.6.tmp": true,
			}
			for name := range torn {
				if err := os.WriteFile(filepath.Join(c.dir, name), []byte("torn"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			switch what {
			case "create":
				mustCreate(t, c, CreateOptions{Name: "next"})
				delete(torn, "run/.db~1-1.json.4.tmp") // goes with the next use of that disk
			case "delete":
				err = c.Delete("db")
			case "import":
				err = operations["import"](t.Context(), c)
			}
			if err != nil {
				t.Fatal(err)
			}
			for name, stays := range torn {
				if _, err := os.Lstat(filepath.Join(c.dir, name)); (err == nil) != stays {
					t.Errorf("%s: stays %v, want %v", name, err == nil, stays)
				}
			}
		})
	}
}

// TestImpossiblePlaces: a backing file that cannot be made does not block the name, for
// other users neither.
func TestImpossiblePlaces(t *testing.T) {
	c := newCatalogue(t)
	file := filepath.Join(c.dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file + "/x.img", c.dir + "/no/such/x.img", "/proc/x.img", "/dev/null", c.dir, "/proc/self/mem/x"} {
		for _, encrypted := range []bool{true, false} {
			if _, err := c.Create(t.Context(), CreateOptions{Name: "db", SizeBytes: diskSize, Encrypted: encrypted, Backend: "file:" + path}); err == nil {
				t.Fatalf("made a disk in %s", path)
			}
			if left := c.pending(); len(left) > 0 {
				t.Fatalf("%s: half made: %v", path, left)
			}
		}
	}
	mustCreate(t, c, CreateOptions{Name: "db"})
}

// TestKilledHolderReleasesTheDisk: nobody can have a disk that is open elsewhere, and
// everybody when that process has been killed.
func TestKilledHolderReleasesTheDisk(t *testing.T) {
	c := newCatalogue(t)
	if err := operations["create encrypted"](t.Context(), c); err != nil {
		t.Fatal(err)
	}
	cmd := childCommand(t, c.dir, 0, "hold")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "held\n" {
		t.Fatalf("%q, %v", line, err)
	}
	before := files(t, c.dir)
	_, errOpen := c.Open(t.Context(), "db", OpenOptions{})
	_, errImport := c.Import(t.Context(), "db", "file:"+c.dir+"/db.img")
	for what, err := range map[string]error{
		"open": errOpen, "import": errImport, "delete": c.Delete("db"), "create": operations["create plain"](t.Context(), c),
	} {
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
			t.Errorf("%s: %v; want ErrInUse by process %d", what, err, cmd.Process.Pid)
		}
	}
	if left := differ(before, files(t, c.dir)); len(left) > 0 {
		t.Fatal(left)
	}
	if _, ok := c.Runtime("db"); !ok {
		t.Fatal("nobody seems to have the disk")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if _, ok := c.Runtime("db"); ok {
		t.Fatal("a dead process seems to have the disk")
	}
	wantWhole(t, c, "db")
	if _, err := os.Lstat(c.runtimePath("db")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the dead process is still named: %v", err)
	}
}

// TestProcessesRace: many processes at once want the same names and the same backing
// files; whoever wins, each disk is whole and no two share a file.
func TestProcessesRace(t *testing.T) {
	c := newCatalogue(t)
	before := bystander(t, c)
	for round := range 4 {
		var running []*exec.Cmd
		for i := range 8 {
			cmd := childCommand(t, c.dir, 0, []string{"create encrypted", "create plain", "delete", "import"}[(i+round)%4])
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			running = append(running, cmd)
		}
		for _, cmd := range running {
			cmd.Wait() // all but one of a kind may be refused
		}
		wantOnly(t, before, c)
		if c.registered("db") {
			wantWhole(t, c, "db")
		} else if _, err := os.Lstat(filepath.Join(c.dir, "db.img")); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("a backing file without a disk: %v", err)
		}
	}
}

// TestNamesRaceForOneFile: of many disks with one backing file one is made.
func TestNamesRaceForOneFile(t *testing.T) {
	c := newCatalogue(t)
	const names = 8
	won := make(chan error, names)
	for i := range names {
		go func() {
			_, err := c.Create(context.Background(), CreateOptions{Name: fmt.Sprint("db", i), SizeBytes: diskSize, Encrypted: i%2 == 0, Backend: "file:" + c.dir + "/db.img"})
			won <- err
		}()
	}
	made := 0
	for range names {
		if err := <-won; err == nil {
			made++
		} else if !errors.Is(err, ErrExists) {
			t.Error(err)
		}
	}
	records, damaged := c.List()
	if made != 1 || len(records) != 1 || len(damaged) > 0 {
		t.Fatalf("%d made, %d there, %v", made, len(records), damaged)
	}
	wantWhole(t, c, records[0].Name)
}

// TestWaitForTheCatalogueCanBeCalledOff: another process is stopped within its turn.
func TestWaitForTheCatalogueCanBeCalledOff(t *testing.T) {
	c := newCatalogue(t)
	lock, err := c.lockCatalogue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c.step = func(string) error { t.Error("changed files without the lock"); return nil }
	done := make(chan error)
	go func() { done <- operations["create plain"](ctx, c) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	c.step = nil
	lock.Close()
	if err := operations["create plain"](t.Context(), c); err != nil {
		t.Fatal(err)
	}
}
