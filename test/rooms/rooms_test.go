// Package rooms holds the program's imports to the table of ARCHITECTURE.md.
package rooms

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const root, module = "../..", "sealblk/"

// room is a folder of the table.
type room struct {
	row     int
	imports string // the last column
}

var (
	line = regexp.MustCompile("(?m)^\\| (`.*) \\|.*\\|(.*)\\|$")
	name = regexp.MustCompile("`([^`]+?)(/…)?`")
)

func table(t *testing.T) map[string]room {
	text, err := os.ReadFile(root + "/ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	rooms := map[string]room{}
	for row, l := range line.FindAllStringSubmatch(string(text), -1) {
		folders, _, _ := strings.Cut(l[1], " | ")
		for _, n := range name.FindAllStringSubmatch(folders, -1) {
			rooms[n[1]] = room{row, l[2]}
			if _, err := os.Stat(filepath.Join(root, n[1])); err != nil {
				t.Errorf("ARCHITECTURE.md: %v", err)
			}
		}
	}
	return rooms
}

// roomOf is the innermost room that a folder is in.
func roomOf(rooms map[string]room, folder string) string {
	for ; folder != "."; folder = filepath.Dir(folder) {
		if _, ok := rooms[folder]; ok {
			return folder
		}
	}
	return ""
}

// allowed tells whether the last column of the room from has the folder to.
func (r room) allowed(from, to string) bool {
	if within(to, from) || within(to, "internal") || strings.TrimSpace(r.imports) == "all" {
		return true
	}
	for _, n := range name.FindAllStringSubmatch(r.imports, -1) {
		rootOnly := strings.Contains(r.imports, "`"+n[1]+"` root")
		if to == n[1] || !rootOnly && within(to, n[1]) {
			return true
		}
	}
	return false
}

func within(folder, parent string) bool { return strings.HasPrefix(folder+"/", parent+"/") }

func TestImportsFollowTheTable(t *testing.T) {
	rooms := table(t)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), "_") || d.Name() == ".git"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		from := roomOf(rooms, folder)
		if from == "" {
			t.Errorf("%s has no row", folder)
			return nil
		}
		for _, to := range imports(t, path) {
			into := roomOf(rooms, to)
			if rooms[into].row < rooms[from].row {
				t.Errorf("%s imports %s, which is above it", path, to)
			}
			if !rooms[from].allowed(from, to) {
				t.Errorf("%s imports %s, which the row of %s does not have", path, to, from)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// imports are the folders of ours that a file imports.
func imports(t *testing.T, path string) (folders []string) {
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range f.Imports {
		p, _ := strconv.Unquote(i.Path.Value) // the parser has seen it
		if folder, ours := strings.CutPrefix(p, module); ours {
			folders = append(folders, folder)
		}
	}
	return folders
}
