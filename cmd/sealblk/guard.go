package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"sealblk/daemon/guard"
	"sealblk/disk"
	"sealblk/internal/sandbox"
)

// layerGuard is the key guard's line among the layers of the sandbox.
const layerGuard = "key guard"

// guardDirectory is where the key guard is pinned.
func (c config) guardDirectory() string {
	if c.Guard.Directory != "" {
		return c.Guard.Directory
	}
	return guard.DefaultDirectory
}

func (a *app) guardCommand() *cli.Command {
	return &cli.Command{
		Name: "guard", Usage: "keep debuggers, root's own included, out of exports",
		Description: "Loads an eBPF program into the kernel that refuses ptrace, /proc/PID/mem and\n" +
			"process_vm_readv on every export and its broker. It stays until --off or a reboot.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "off", Usage: "unload it, to debug"},
			&cli.BoolFlag{Name: "status", Usage: "tell whether it is loaded, and whom it guards"},
		},
		Action: a.guard,
	}
}

func (a *app) guard(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	config, err := loadConfig(c.String("config"))
	if err != nil {
		return err
	}
	dir := config.guardDirectory()
	switch {
	case c.Bool("off") && c.Bool("status"):
		return usagef("--off and --status exclude each other")
	case c.Bool("off"):
		if err := guard.Unload(dir); err != nil {
			return err
		}
		return a.printer(c).done(guardStatus{Directory: dir, Processes: []guard.Process{}}, "key guard is off")
	case c.Bool("status"):
		return a.guardStatus(c, dir)
	}
	if err := guard.Load(dir); err != nil {
		return err
	}
	if err := a.guardRunning(c, dir); err != nil {
		return err
	}
	return a.guardStatus(c, dir)
}

// guardStatus is what --status prints.
type guardStatus struct {
	Loaded    bool            `json:"loaded"`
	Directory string          `json:"directory"`
	Processes []guard.Process `json:"processes"`
}

func (a *app) guardStatus(c *cli.Context, dir string) error {
	s := guardStatus{Directory: dir, Processes: []guard.Process{}}
	err := guard.Loaded(dir)
	if err == nil {
		s.Loaded = true
		if s.Processes, err = guard.Guarded(dir); err != nil {
			return err
		}
	}
	rows := [][2]string{{"key guard", "loaded"}, {"directory", dir}}
	if err != nil {
		rows = [][2]string{{"key guard", err.Error()}}
	}
	for _, p := range s.Processes {
		rows = append(rows, [2]string{fmt.Sprintf("process %d", p.PID), fmt.Sprintf("guarded, %d refused", p.Refused)})
	}
	return a.printer(c).value(s, rows)
}

// guardRunning registers the exports that were started before the guard was loaded,
// with their brokers.
func (a *app) guardRunning(c *cli.Context, dir string) error {
	if _, err := os.Stat(stateDir(c)); err != nil {
		return nil // there are no disks yet
	}
	catalogue, err := disk.OpenCatalogue(stateDir(c), nil)
	if err != nil {
		return err
	}
	disks, damaged := catalogue.List()
	for _, err := range damaged {
		a.warn(err.Error())
	}
	for _, d := range disks {
		for _, pid := range exportOf(catalogue, d.Name) {
			if err := guard.Register(dir, pid); err != nil {
				a.warn(err.Error())
			}
		}
	}
	return nil
}

// exportOf is the export of a disk, if it runs, and its children.
func exportOf(catalogue *disk.Catalogue, name string) []int {
	rt, ok := catalogue.Runtime(name)
	if !ok {
		return nil
	}
	pids := []int{rt.PID}
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", rt.PID)) // it may be gone by now
	for _, t := range tasks {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", rt.PID, t.Name()))
		for _, word := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// guardSelf registers this process, which is about to hold keys.
func guardSelf(config config) sandbox.Layer {
	if err := guard.Register(config.guardDirectory(), os.Getpid()); err != nil {
		return sandbox.Layer{Name: layerGuard, Detail: err.Error()}
	}
	return sandbox.Layer{Name: layerGuard, On: true, Detail: "nobody may trace this process or read its memory"}
}
