package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// streams are where the program writes: results to out, all else to err.
type streams struct{ out, err io.Writer }

// printer writes results as the user asked for them.
type printer struct {
	w    io.Writer
	json bool
}

// value prints one thing: as JSON, or as lines of "name  value".
func (p printer) value(v any, rows [][2]string) error {
	if p.json {
		return p.encode(v)
	}
	tw := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		writeRow(tw, row[:])
	}
	return tw.Flush()
}

// list prints many things: as a JSON array, or as a table.
func (p printer) list(v any, head []string, rows [][]string) error {
	if p.json {
		return p.encode(v)
	}
	tw := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	writeRow(tw, head)
	for _, row := range rows {
		writeRow(tw, row)
	}
	return tw.Flush()
}

func writeRow(w io.Writer, cells []string) {
	for i, c := range cells {
		if i > 0 {
			io.WriteString(w, "\t") //nolint:errcheck // Flush reports it
		}
		io.WriteString(w, oneLine(c)) //nolint:errcheck // Flush reports it
	}
	io.WriteString(w, "\n") //nolint:errcheck // Flush reports it
}

func (p printer) encode(v any) error {
	enc := json.NewEncoder(p.w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// done says that something was done; with JSON output it is the thing itself.
func (p printer) done(v any, format string, args ...any) error {
	if p.json {
		return p.encode(v)
	}
	_, err := fmt.Fprintln(p.w, oneLine(fmt.Sprintf(format, args...)))
	return err
}
