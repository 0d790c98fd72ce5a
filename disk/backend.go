package disk

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// backend is a parsed backend URI.
type backend struct {
	kind string // file, memory, null
	path string // file: absolute path
}

// parseBackend reads a backend URI. Schemes that the command line documents but
// this build does not have are named as such.
func parseBackend(uri string) (backend, error) {
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok {
		return backend{}, withHint(fmt.Errorf("%w: backend %q has no scheme", ErrInvalid, uri), "use file:PATH")
	}
	switch scheme {
	case "file":
		if !filepath.IsAbs(rest) {
			return backend{}, withHint(fmt.Errorf("%w: backend %q", ErrInvalid, uri), "give an absolute path: file:/PATH")
		}
		if !isText(rest) {
			return backend{}, withHint(fmt.Errorf("%w: backend %q", ErrInvalid, uri), "use a path of valid UTF-8 without control characters: a record could not keep it")
		}
		return backend{kind: "file", path: filepath.Clean(rest)}, nil
	case "memory", "null":
		if rest != "" {
			return backend{}, withHint(fmt.Errorf("%w: backend %q", ErrInvalid, uri), "write "+scheme+": alone")
		}
		return backend{kind: scheme}, nil
	case "nbd", "nbd+unix", "rbd":
		return backend{}, withHint(fmt.Errorf("%w: %s: is not built into this program", ErrBackend, scheme), "use file:PATH")
	}
	return backend{}, withHint(fmt.Errorf("%w: unknown backend scheme %q", ErrBackend, scheme), "use file:PATH")
}

// isText tells whether JSON keeps s as it is and a terminal can show it.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func (b backend) uri() string { return b.kind + ":" + b.path }

// where is what a listing shows: the path of a file, else the URI.
func (b backend) where() string {
	if b.kind == "file" {
		return b.path
	}
	return b.uri()
}

// normalise makes a user's backend argument absolute. Behind file:// a URI has a host, up
// to the next slash (RFC 8089): ours is none.
func normalise(uri string) (string, error) {
	if path, ok := strings.CutPrefix(uri, "file:"); ok && path != "" {
		local, hasHost := strings.CutPrefix(path, "//")
		if hasHost && !strings.HasPrefix(local, "/") {
			return "", withHint(fmt.Errorf("%w: backend %q names a host behind file://", ErrInvalid, uri),
				"write file:PATH, or file:///PATH for an absolute one")
		}
		abs, err := filepath.Abs(local)
		if err != nil {
			return "", err
		}
		uri = "file:" + abs
	}
	b, err := parseBackend(uri)
	if err != nil {
		return "", err
	}
	return b.uri(), nil
}

// Where is the path of the backing file, or the backend's URI.
func (r Record) Where() string {
	b, err := parseBackend(r.Backend)
	if err != nil {
		return r.Backend
	}
	return b.where()
}
