package guest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sealblk/qmp"
)

// BootError is a guest that did not come up.
type BootError struct {
	Err     error
	Console string // all that it said
	CPUs    string // where its processors were, empty if QEMU had ended
}

func (e *BootError) Error() string {
	return fmt.Sprintf("boot guest: %v; the console's last line: %q", e.Err, lastLine(e.Console))
}

func (e *BootError) Unwrap() error { return e.Err }

// newBootError looks at the machine once more before it is gone.
func (vm *VM) newBootError(err error) *BootError {
	return &BootError{Err: err, Console: vm.Console(), CPUs: vm.registers()}
}

// registers is where the processors are, three times: one that is stuck looks the same.
func (vm *VM) registers() string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	m, err := qmp.Dial(ctx, vm.QMP())
	if err != nil {
		return ""
	}
	defer func() { _ = m.Disconnect() }()
	var all strings.Builder
	for range 3 {
		var text string
		if err := m.Execute(ctx, "human-monitor-command", map[string]string{"command-line": "info registers -a"}, &text); err != nil {
			fmt.Fprintf(&all, "%v\n", err)
			break
		}
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "CPU#") || strings.Contains(line, "IP=") {
				all.WriteString(line)
			}
		}
	}
	return all.String()
}
