package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
)

// manCommand writes the manual pages, for packages: each command has its own, made
// from what --help shows.
func (a *app) manCommand() *cli.Command {
	return &cli.Command{
		Name: "man", Usage: "write the manual pages", ArgsUsage: "DIR", Hidden: true,
		Action: func(c *cli.Context) error {
			args, err := arguments(c, "DIR")
			if err != nil {
				return err
			}
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("write manual: %w", err)
			}
			for name, text := range manual() {
				if err := os.WriteFile(filepath.Join(args[0], name+".8"), text, 0o644); err != nil {
					return fmt.Errorf("write manual: %w", err)
				}
			}
			return nil
		},
	}
}

// manual is every page by its name. Its command line is a fresh one, whose defaults
// the environment has not changed.
func manual() map[string][]byte {
	app := newApp(streams{}).cli
	top := &cli.Command{Name: app.Name, Usage: app.Usage, Description: app.Description, Flags: app.Flags, Subcommands: app.Commands}
	pages := map[string][]byte{}
	addPages(pages, nil, top)
	return pages
}

func addPages(pages map[string][]byte, parents []string, c *cli.Command) {
	if c.Hidden {
		return
	}
	words := append(parents[:len(parents):len(parents)], c.Name)
	pages[strings.Join(words, "-")] = page(words, c)
	for _, sub := range c.Subcommands {
		addPages(pages, words, sub)
	}
}

// page is one command's page in the man(7) language.
func page(words []string, c *cli.Command) []byte {
	var b bytes.Buffer
	title := strings.Join(words, "-")
	fmt.Fprintf(&b, ".TH %s 8 \"\" sealblk \"System Administration\"\n", strings.ToUpper(roff(title)))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(title), roff(c.Usage))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n%s\n", roff(strings.Join(words, " ")), roff(synopsis(c)))
	if c.Description != "" {
		fmt.Fprintf(&b, ".SH DESCRIPTION\n%s\n", roff(c.Description))
	}
	writeOptions(&b, c.Flags)
	writeCommands(&b, c)
	b.WriteString(".SH EXIT STATUS\n0 if it is done, 1 if it failed, 2 if the command line is wrong.\n")
	writeSeeAlso(&b, words, c)
	return b.Bytes()
}

func synopsis(c *cli.Command) string {
	parts := []string{c.ArgsUsage}
	if len(c.Subcommands) > 0 {
		parts = append(parts, "COMMAND")
	}
	if len(c.Flags) > 0 {
		parts = append(parts, "[flags]")
	}
	return strings.TrimSpace(strings.Join(parts, " "))
}

func writeCommands(b *bytes.Buffer, c *cli.Command) {
	for i, sub := range c.VisibleCommands() {
		if i == 0 {
			b.WriteString(".SH COMMANDS\n")
		}
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(sub.Name), roff(sub.Usage))
	}
}

// writeSeeAlso names the pages above and below.
func writeSeeAlso(b *bytes.Buffer, words []string, c *cli.Command) {
	var pages []string
	if len(words) > 1 {
		pages = append(pages, strings.Join(words[:len(words)-1], "-"))
	}
	for _, sub := range c.VisibleCommands() {
		pages = append(pages, strings.Join(words, "-")+"-"+sub.Name)
	}
	for i, p := range pages {
		pages[i] = fmt.Sprintf(".BR %s (8)", roff(p))
	}
	if len(pages) > 0 {
		fmt.Fprintf(b, ".SH SEE ALSO\n%s\n", strings.Join(pages, ",\n"))
	}
}

func writeOptions(b *bytes.Buffer, flags []cli.Flag) {
	for i, f := range flags {
		if i == 0 {
			b.WriteString(".SH OPTIONS\n")
		}
		d, ok := f.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		value, text := placeholder(d)
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(strings.TrimSpace("--"+f.Names()[0]+" "+value)), roff(text+byDefault(d)))
	}
}

// placeholder is the word in backquotes of a flag's usage: it stands for its value.
func placeholder(f cli.DocGenerationFlag) (value, text string) {
	before, rest, _ := strings.Cut(f.GetUsage(), "`")
	value, after, found := strings.Cut(rest, "`")
	switch {
	case found:
		return value, before + value + after
	case f.TakesValue():
		return "VALUE", f.GetUsage()
	}
	return "", f.GetUsage()
}

func byDefault(f cli.DocGenerationFlag) string {
	if v := f.GetValue(); f.TakesValue() && v != "" && f.GetDefaultText() != "none" {
		return " (default: " + v + ")"
	}
	return ""
}

// roff is text without meaning to a formatter.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
