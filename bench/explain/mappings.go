package explain

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// processes know what is at the addresses of processes.
type processes struct {
	byPID  map[int][]mapping
	owners map[int]int // thread to process
	images map[string]*image
}

// mapping is code in a process's memory.
type mapping struct {
	begin, end, offset uint64
	// path is what /proc/PID/maps calls it, and file how it can be opened.
	path, file string
}

func (p *processes) add(pid int) error {
	if p.byPID == nil {
		p.byPID, p.owners, p.images = map[int][]mapping{}, map[int]int{}, map[string]*image{}
	}
	tids, err := threadsOf(pid)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list threads of process %d: %w", pid, err)
	}
	for _, tid := range tids {
		p.owners[tid] = pid
	}
	p.byPID[pid], err = readMappings(pid)
	if err != nil && !gone(err) {
		return fmt.Errorf("read mappings of process %d: %w", pid, err)
	}
	return nil
}

// name is a thread's process and name: 0 and "(ended)" of one that has ended.
func (p *processes) name(tid int) (pid int, name string) {
	pid, ok := p.owners[tid]
	if ok {
		name = threadName(pid, tid)
	}
	if name == "" {
		name = "(ended)"
	}
	return pid, name
}

// symbol is what is at an address in a thread. One that has ended was of a process that
// has not, or cannot be known.
func (p *processes) symbol(tid int, ip uint64) place {
	unknown := place{CodeUnknown, CodeUnknown}
	pid, ok := p.owners[tid]
	if !ok && len(p.byPID) == 1 {
		for pid = range p.byPID {
			ok = true
		}
	}
	if !ok {
		return unknown
	}
	for _, m := range p.byPID[pid] {
		if ip >= m.begin && ip < m.end {
			return p.place(&m, ip)
		}
	}
	return unknown
}

func (p *processes) place(m *mapping, ip uint64) place {
	if !strings.HasPrefix(m.path, "/") { // [vdso], or code that was made at run time
		name := m.path
		if name == "" {
			name = CodeUnknown
		}
		return place{name, name}
	}
	i := p.images[m.path]
	if i == nil {
		var err error
		if i, err = openImage(m.file); err != nil {
			i = &image{} // it goes by its file's name
		}
		p.images[m.path] = i
	}
	function := i.function(ip - m.begin + m.offset)
	if i.goProgram && function != "" {
		return goPlace(function)
	}
	return filePlace(m.path, function)
}

// readMappings reads a process's mappings with code. (proc_pid_maps(5))
func readMappings(pid int) (all []mapping, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	f, err := os.Open(filepath.Join(dir, "maps"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		m, code, err := parseMapping(lines.Text())
		if err != nil {
			return nil, err
		}
		if code {
			m.file = fmt.Sprintf("%s/map_files/%x-%x", dir, m.begin, m.end)
			all = append(all, m)
		}
	}
	return all, lines.Err()
}

var errMapping = errors.New("not a line of /proc/PID/maps")

// parseMapping reads a line: 00400000-00452000 r-xp 00001000 08:02 173521  /usr/bin/x
func parseMapping(line string) (m mapping, code bool, err error) {
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return m, false, fmt.Errorf("%q: %w", line, errMapping)
	}
	begin, end, _ := strings.Cut(fields[0], "-")
	var errs [3]error
	m.begin, errs[0] = strconv.ParseUint(begin, 16, 64)
	m.end, errs[1] = strconv.ParseUint(end, 16, 64)
	m.offset, errs[2] = strconv.ParseUint(fields[2], 16, 64)
	if err := errors.Join(errs[:]...); err != nil {
		return m, false, fmt.Errorf("%q: %w", line, errMapping)
	}
	rest := line // behind the five fields: a path may hold spaces
	for range 5 {
		_, rest, _ = strings.Cut(strings.TrimLeft(rest, " "), " ")
	}
	m.path = strings.TrimSuffix(strings.TrimSpace(rest), " (deleted)")
	return m, strings.Contains(fields[1], "x"), nil
}
