package explain

import (
	"path/filepath"
	"strings"
)

// ours is the path of this module, which the names of its packages go without.
const ours = "sealblk/"

// cryptoPackages encrypt, with those below them, and cryptoLibraries do by the first
// part of their file's name.
var (
	cryptoPackages  = []string{"cipher", "crypto", "golang.org/x/crypto"}
	cryptoLibraries = []string{"libcrypto", "libgcrypt", "libgnutls", "libnettle", "libhogweed"}
)

// goPlace is where a function of a Go program belongs.
func goPlace(function string) place {
	switch function {
	case "runtime.memmove", "runtime.memclrNoHeapPointers", "runtime.memclrNoHeapPointersChunked":
		return place{CodeMemory, function}
	}
	pkg := strings.TrimPrefix(packageOf(function), ours)
	switch {
	case below(pkg, cryptoPackages):
		return place{CodeCrypto, function}
	case pkg == "", below(pkg, []string{"runtime", "internal/runtime", "internal/bytealg"}):
		return place{"runtime", function}
	}
	return place{pkg, function}
}

// packageOf is the path of a function's package; empty for what the compiler and the
// assembler made. Type arguments may hold other paths.
func packageOf(function string) string {
	name, _, _ := strings.Cut(function, "[")
	if strings.HasPrefix(name, "type:") || strings.HasPrefix(name, "go:") {
		return ""
	}
	slash := strings.LastIndexByte(name, '/') + 1
	last, _, found := strings.Cut(name[slash:], ".")
	if !found {
		return ""
	}
	return strings.ReplaceAll(name[:slash]+last, "%2e", ".")
}

func below(pkg string, roots []string) bool {
	for _, root := range roots {
		if pkg == root || strings.HasPrefix(pkg, root+"/") {
			return true
		}
	}
	return false
}

// filePlace is where a function of another program or library belongs.
func filePlace(path, function string) place {
	base := filepath.Base(path)
	if function == "" {
		function = base
	}
	for _, prefix := range cryptoLibraries {
		if strings.HasPrefix(base, prefix) {
			return place{CodeCrypto, function}
		}
	}
	return place{base, function}
}
