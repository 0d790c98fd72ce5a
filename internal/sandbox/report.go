package sandbox

import (
	"errors"
	"strings"
)

// Names of the layers, in the order in which they are applied.
const (
	LayerNetwork      = "private network"
	LayerUser         = "unprivileged user"
	LayerCapabilities = "no capabilities"
	LayerNoNewPrivs   = "no new privileges"
	LayerCore         = "no core dumps"
	LayerLandlock     = "landlock"
	LayerSeccomp      = "seccomp"
)

// Layer is one part of the sandbox.
type Layer struct {
	Name string `json:"name"`
	On   bool   `json:"on"`
	// Detail says what it does, or why it is off.
	Detail string `json:"detail"`

	lacking bool // it could be on, on another kernel
}

// Report says what became of each layer.
type Report []Layer

// Lacking is one line per layer that the kernel lacks.
func (r Report) Lacking() []string {
	var lines []string
	for _, l := range r {
		if l.lacking {
			lines = append(lines, "sandbox without "+l.Name+": "+l.Detail)
		}
	}
	return lines
}

// String is the names of the layers that are on.
func (r Report) String() string {
	var names []string
	for _, l := range r {
		if l.On {
			names = append(names, l.Name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// on and off make a layer's line.
func on(name, detail string) Layer { return Layer{name, true, detail, false} }

func off(name string, err error) Layer {
	return Layer{name, false, err.Error(), !errors.Is(err, errNotRoot)}
}
