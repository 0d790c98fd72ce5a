package explain

import (
	"cmp"
	"debug/elf"
	"debug/gosym"
	"errors"
	"fmt"
	"slices"
)

// image is an executable file with what its addresses mean.
type image struct {
	goProgram bool
	segments  []elf.ProgHeader // those with code
	symbols   []symbol         // by address
}

type symbol struct {
	address, end uint64
	name         string
}

// openImage reads the symbols of an ELF file; what was stripped has few or none.
func openImage(path string) (*image, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read symbols: %w", err)
	}
	defer f.Close()
	i := &image{goProgram: f.Section(goTable) != nil}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 {
			i.segments = append(i.segments, p.ProgHeader)
		}
	}
	for _, read := range []func() ([]elf.Symbol, error){f.Symbols, f.DynamicSymbols} {
		symbols, err := read()
		if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
			return nil, fmt.Errorf("read symbols of %s: %w", path, err)
		}
		i.take(symbols)
	}
	if i.goProgram && f.SectionByType(elf.SHT_SYMTAB) == nil {
		i.takeGoTable(f)
	}
	i.sort()
	return i, nil
}

func (i *image) take(symbols []elf.Symbol) {
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Section != elf.SHN_UNDEF {
			i.symbols = append(i.symbols, symbol{s.Value, s.Value + s.Size, s.Name})
		}
	}
}

// goTable is where a Go program has its functions for its own use: it cannot be
// stripped. goModule is its description (Go 1.26).
const (
	goTable  = ".gopclntab"
	goModule = ".go.module"
)

func (i *image) takeGoTable(f *elf.File) {
	text := f.Section(".text")
	data, err := f.Section(goTable).Data()
	if text == nil || err != nil {
		return
	}
	// From 0, as the table has distances from the first of Go's code.
	table, err := gosym.NewTable(nil, gosym.NewLineTable(data, 0))
	if err != nil || len(table.Funcs) == 0 {
		return // one of a later Go: the addresses stay unknown
	}
	base := firstFunction(f, text) - table.Funcs[0].Entry
	for _, f := range table.Funcs {
		i.symbols = append(i.symbols, symbol{base + f.Entry, base + f.End, f.Name})
	}
}

// firstFunction is the address of Go's first function. Where there is C in the program
// too it is behind that, and the first address of code that the module's description holds.
func firstFunction(f *elf.File, text *elf.Section) uint64 {
	module := f.Section(goModule)
	if module == nil {
		return text.Addr
	}
	data, err := module.Data()
	if err != nil {
		return text.Addr
	}
	for ; len(data) >= 8; data = data[8:] {
		if a := f.ByteOrder.Uint64(data); a >= text.Addr && a < text.Addr+text.Size {
			return a
		}
	}
	return text.Addr
}

// sort orders the symbols, and has those without a size last until the next.
func (i *image) sort() {
	slices.SortFunc(i.symbols, func(a, b symbol) int {
		return cmp.Or(cmp.Compare(a.address, b.address), cmp.Compare(b.end, a.end), cmp.Compare(a.name, b.name))
	})
	i.symbols = slices.CompactFunc(i.symbols, func(a, b symbol) bool { return a.address == b.address })
	for k := range i.symbols {
		s := &i.symbols[k]
		if s.end == s.address && k+1 < len(i.symbols) {
			s.end = i.symbols[k+1].address
		}
	}
}

// function at an offset of the file; empty if there is none.
func (i *image) function(offset uint64) string {
	for _, p := range i.segments {
		if offset >= p.Off && offset < p.Off+p.Filesz {
			return i.at(offset - p.Off + p.Vaddr)
		}
	}
	return ""
}

func (i *image) at(address uint64) string {
	k, found := slices.BinarySearchFunc(i.symbols, address, func(s symbol, a uint64) int { return cmp.Compare(s.address, a) })
	if !found {
		k--
	}
	if k < 0 || address >= i.symbols[k].end {
		return ""
	}
	return i.symbols[k].name
}
