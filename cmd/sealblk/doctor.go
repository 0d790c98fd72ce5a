package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	collector "sealblk/bench/explain"
	"sealblk/cipher"
	"sealblk/daemon/guard"
	"sealblk/internal/sandbox"
	"sealblk/internal/uring"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

// diagnosis is one line of the doctor's report.
type diagnosis struct {
	Check  string `json:"check"`
	Result string `json:"result"`
	Detail string `json:"detail"`
	Hint   string `json:"hint"`
}

// Results of a diagnosis. Lacking means that the program works without it.
const (
	healthy = "ok"
	lacking = "lacking"
	broken  = "broken"
)

func (a *app) doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "what this host offers and lacks, and how to mend it",
		Description: "Exits with 1 if something is broken; what is lacking is done without.",
		Action:      a.doctor,
	}
}

func (a *app) doctor(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	report := []diagnosis{
		checkCipher(), checkSecretMemory(), checkMemlock(), checkUring(), checkHugePages(),
		checkProgram("qemu-system-x86_64", "VMs", "apt-get install qemu-system-x86"),
		checkProgram("cryptsetup", "opening disks without this program", "apt-get install cryptsetup-bin"),
		checkKVM(), checkStateDir(stateDir(c)), a.checkKMS(c),
	}
	config, err := loadConfig(c.String("config"))
	if err != nil {
		return err
	}
	report = append(report, checkRootKey(stateDir(c), config))
	report = append(report, checkSandbox(config)...)
	report = append(report, checkGuard(config), checkTracing())
	var rows [][]string
	for _, d := range report {
		rows = append(rows, []string{d.Result, d.Check, d.Detail, d.Hint})
		if d.Result == broken {
			err = errors.New(strings.TrimSuffix(fmt.Sprintf("%s: %s; %s", d.Check, d.Detail, d.Hint), "; "))
		}
	}
	if printed := a.printer(c).list(report, []string{"RESULT", "CHECK", "DETAIL", "TO MEND IT"}, rows); printed != nil {
		return printed
	}
	return err
}

func checkCipher() diagnosis {
	return diagnosis{"cipher", healthy, "AES-256-XTS by " + strings.Join(cipher.Implementations(), ", ") + " (the first is used)", ""}
}

func checkSecretMemory() diagnosis {
	b, err := secret.New(64)
	if err != nil {
		return diagnosis{"locked memory", broken, err.Error(), "raise the limit: ulimit -l, or LimitMEMLOCK= in the unit file"}
	}
	defer b.Destroy()
	if b.Backing() != secret.MemfdSecret {
		return diagnosis{"locked memory", lacking, "keys are in " + b.Backing().String(), "boot with secretmem.enable=1 to hide keys from the kernel's own debuggers too"}
	}
	return diagnosis{"locked memory", healthy, "keys are in " + b.Backing().String(), ""}
}

func checkMemlock() diagnosis {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r); err != nil {
		return diagnosis{"memlock limit", lacking, err.Error(), ""}
	}
	if r.Cur < 1<<20 {
		return diagnosis{"memlock limit", lacking, strconv.FormatUint(r.Cur, 10) + " bytes", "raise it: ulimit -l 1024, or LimitMEMLOCK=1M in the unit file"}
	}
	return diagnosis{"memlock limit", healthy, "enough", ""}
}

func checkUring() diagnosis {
	if err := uring.Probe(); err != nil {
		return diagnosis{"io_uring", lacking, err.Error() + ": files are served by a thread pool", "allow it: sysctl kernel.io_uring_disabled=0"}
	}
	return diagnosis{"io_uring", healthy, "available", ""}
}

func checkHugePages() diagnosis {
	data, _ := os.ReadFile("/proc/sys/vm/nr_hugepages")
	if n := strings.TrimSpace(string(data)); n != "" && n != "0" {
		return diagnosis{"huge pages", healthy, n + " reserved", ""}
	}
	return diagnosis{"huge pages", lacking, "none reserved: guest memory is mapped in small pages", "sysctl vm.nr_hugepages=N, and hugetlb=on in the VM's memory backend"}
}

// checkSandbox is what an export that is started by this user would get.
func checkSandbox(config config) []diagnosis {
	if config.Worker.Sandbox == "off" {
		return []diagnosis{{"sandbox", lacking, "the configuration switches it off", `set worker.sandbox to "on"`}}
	}
	layers, err := sandbox.Probe(sandbox.Policy{User: config.Worker.User})
	if err != nil {
		return []diagnosis{{"sandbox", broken, err.Error(), "name a user in worker.user that exists and is not root: useradd --system " + sandbox.DefaultUser}}
	}
	var lines []diagnosis
	for _, l := range layers {
		d := diagnosis{"sandbox: " + l.Name, healthy, l.Detail, ""}
		if !l.On {
			d.Result, d.Hint = lacking, "exports run without it"
		}
		lines = append(lines, d)
	}
	return lines
}

func checkGuard(config config) diagnosis {
	const name = "key guard"
	if err := guard.Supported(); err != nil {
		return diagnosis{name, lacking, err.Error(), "exports run without it"}
	}
	if err := guard.Loaded(config.guardDirectory()); err != nil {
		return diagnosis{name, lacking, err.Error(), "load it: sealblk guard"}
	}
	return diagnosis{name, healthy, "loaded: nobody may read the memory of exports", ""}
}

// checkTracing is about what bench run --explain needs.
func checkTracing() diagnosis {
	const name = "tracing"
	if err := collector.Supported(); err != nil {
		detail, mend, _ := strings.Cut(err.Error(), ": ")
		return diagnosis{name, lacking, detail, mend + "; bench run goes without --explain"}
	}
	return diagnosis{name, healthy, "eBPF programs can be attached: bench run --explain", ""}
}

func checkProgram(name, why, hint string) diagnosis {
	path, err := exec.LookPath(name)
	if err != nil {
		return diagnosis{name, lacking, "not found; it is for " + why, hint}
	}
	return diagnosis{name, healthy, path, ""}
}

func checkKVM() diagnosis {
	if err := unix.Access("/dev/kvm", unix.R_OK|unix.W_OK); err != nil {
		return diagnosis{"KVM", lacking, "/dev/kvm cannot be used: VMs run under emulation", "load kvm_intel or kvm_amd, and join the group kvm"}
	}
	return diagnosis{"KVM", healthy, "/dev/kvm can be opened", ""}
}

func checkStateDir(dir string) diagnosis {
	info, err := os.Stat(dir)
	if os.IsNotExist(err) {
		return diagnosis{"state directory", healthy, dir + " will be made when it is first needed", ""}
	}
	if err == nil {
		err = unix.Access(dir, unix.W_OK)
	}
	if err != nil {
		return diagnosis{"state directory", broken, err.Error(), "run as its owner, or choose another with --state-dir"}
	}
	if info.Mode().Perm()&0o022 != 0 {
		return diagnosis{"state directory", broken, dir + " can be written by others", "chmod go-w " + dir}
	}
	return diagnosis{"state directory", healthy, dir, ""}
}

// checkKMS asks the embedded KMS whether a backup is due.
func (a *app) checkKMS(c *cli.Context) diagnosis {
	const name, mend = "embedded KMS", "sealblk kms backup --out FILE"
	config, err := loadConfig(c.String("config"))
	if err != nil {
		return diagnosis{name, broken, err.Error(), "correct the file"}
	}
	var status local.BackupStatus
	kms, err := openLocal(stateDir(c), config, local.Operator)
	if err == nil {
		defer kms.Close()
		status, err = kms.BackupStatus(c.Context)
		err = errors.Join(err, kms.Lost(c.Context))
	}
	switch {
	case err != nil:
		return diagnosis{name, broken, err.Error(), hintOf(err)}
	case status.Keys == 0:
		return diagnosis{name, healthy, "not in use yet", ""}
	case status.Needed():
		detail, _, _ := strings.Cut(backupWarning(status), ": sealblk")
		return diagnosis{name, lacking, detail, mend}
	}
	return diagnosis{name, healthy, "backed up on " + status.Last.Format(timeFormat), ""}
}
