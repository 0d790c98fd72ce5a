package secret

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// scenarios change their process for good, so each runs in one of its own.
var scenarios = map[string]func() error{
	"limit":   limitScenario,
	"harden":  hardenScenario,
	"receive": receiveScenario,
}

func scenario(name string) *exec.Cmd {
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), "SECRET_TEST_SCENARIO="+name)
	return c
}

func TestScenarios(t *testing.T) {
	for _, name := range []string{"limit", "harden"} {
		t.Run(name, func(t *testing.T) {
			if out, err := scenario(name).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// limitScenario allocates under a limit as an ordinary user has it.
func limitScenario() error {
	runtime.LockOSThread() // capabilities belong to the thread
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return err
	}
	for _, limit := range []uint64{0, 64 << 10} {
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: limit, Max: 64 << 10}); err != nil {
			return err
		}
		b, err := New(128 << 10)
		if b != nil || !errors.Is(err, ErrLimit) {
			return fmt.Errorf("New under a limit of %d: %w", limit, err)
		}
		for _, word := range []string{"RLIMIT_MEMLOCK is " + fmt.Sprint(limit), "ulimit -l", "LimitMEMLOCK="} {
			if !strings.Contains(err.Error(), word) {
				return fmt.Errorf("error %w does not say %q", err, word)
			}
		}
	}
	b, err := New(64) // the failed ones gave back what they had
	if err != nil {
		return fmt.Errorf("New below the limit: %w", err)
	}
	b.Destroy()
	return nil
}

// hardenScenario looks at what is left of core dumps.
func hardenScenario() error {
	if err := HardenProcess(); err != nil {
		return err
	}
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &r); err != nil || r.Cur != 0 || r.Max != 0 {
		return fmt.Errorf("core limit %+v, %w", r, err)
	}
	if n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || n != 0 {
		return fmt.Errorf("dumpable %d, %w", n, err)
	}
	b, err := Random(64)
	if err != nil {
		return fmt.Errorf("secret in a hardened process: %w", err)
	}
	b.Destroy()
	return HardenProcess() // once more does no harm
}

const passed = "a secret that crosses an exec"

// receiveScenario is the child of TestSecretToAnotherProgram.
func receiveScenario() error {
	b, err := ReadPipe(os.NewFile(3, "secret"), len(passed))
	if err != nil {
		return err
	}
	defer b.Destroy()
	if string(b.Bytes()) != passed {
		return errors.New("another secret arrived")
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	if n := strings.Count(string(maps), "secretmem"); n > 1 {
		return fmt.Errorf("%d secret mappings in a program that has one buffer", n)
	}
	fmt.Print("received")
	return nil
}

func TestSecretToAnotherProgram(t *testing.T) {
	b := known(t, passed)
	r, w := pipe(t)
	c := scenario("receive")
	c.ExtraFiles = []*os.File{r}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := b.WritePipe(w); err != nil {
		t.Error(err)
	}
	said, _ := io.ReadAll(out)
	if err := c.Wait(); err != nil || string(said) != "received" {
		t.Errorf("child: %v, said %q", err, said)
	}
}
