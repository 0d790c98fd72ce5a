package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"sealblk/disk"
)

// completionFlag, at the end of a command line, asks what may come there. A word that
// begins with a dash is given to be completed; any other is the shell's to match.
const completionFlag = "--generate-bash-completion"

var completionScripts = map[string]string{
	"bash": `_sealblk() {
	local cur=${COMP_WORDS[COMP_CWORD]} words=("${COMP_WORDS[@]:0:COMP_CWORD}")
	[[ $cur == -* ]] && words+=("$cur")
	COMPREPLY=($(compgen -W "$("${words[@]}" ` + completionFlag + ` 2>/dev/null)" -- "$cur"))
}
complete -o bashdefault -o default -F _sealblk sealblk
`,
	"zsh": `#compdef sealblk
_sealblk() {
	local -a line found
	line=("${(@)words[1,CURRENT-1]}")
	[[ $words[CURRENT] == -* ]] && line+=("$words[CURRENT]")
	found=(${(f)"$("${(@)line}" ` + completionFlag + ` 2>/dev/null)"})
	(( $#found )) && compadd -a found || _files
}
compdef _sealblk sealblk
`,
	"fish": `function __sealblk
	set -l words (commandline -opc)
	string match -q -- '-*' (commandline -ct); and set -a words (commandline -ct)
	$words ` + completionFlag + ` 2>/dev/null
end
complete -c sealblk -a '(__sealblk)'
`,
}

func (a *app) completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print the script that lets a shell complete command lines", ArgsUsage: "SHELL",
		Description: "SHELL is bash, zsh or fish. For bash: source <(sealblk completion bash)",
		Action: func(c *cli.Context) error {
			args, err := arguments(c, "SHELL")
			if err != nil {
				return err
			}
			script, ok := completionScripts[args[0]]
			if !ok {
				return usagef("shell %q: use bash, zsh or fish", args[0])
			}
			_, err = fmt.Fprint(a.out.out, script)
			return err
		},
	}
}

// completing tells whether a shell asks for the next word, and the words so far.
func completing(args []string) ([]string, bool) {
	last := len(args) - 1
	if last < 1 || args[last] != completionFlag {
		return nil, false
	}
	return args[1:last], true
}

// complete prints what may follow the words, one a line. Nothing is left to the shell:
// it completes file names.
func (a *app) complete(words []string) {
	for _, word := range a.candidates(words) {
		fmt.Fprintln(a.out.out, word)
	}
}

func (a *app) candidates(words []string) []string {
	r := reordering{app: a.cli, commands: a.cli.Commands}
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		if !strings.HasPrefix(word, "-") {
			r.argument(word)
			continue
		}
		if len(words) == 0 && !r.takesValue(word) {
			return r.flagsLike(word)
		}
		rest, err := r.flag(word, words)
		if err != nil { // it is the last word, and its value comes next
			return values[strings.TrimLeft(word, "-")]
		}
		words = rest
	}
	return r.next()
}

// takesValue tells whether a flag's value is the next word.
func (r *reordering) takesValue(word string) bool {
	_, f := r.find(word)
	return f != nil && !isBool(f) && !strings.Contains(word, "=")
}

// flagsLike are the flags of the command, and the global ones, that begin so.
func (r *reordering) flagsLike(prefix string) []string {
	all := []string{"--help"}
	flags := r.app.Flags
	if r.command != nil {
		flags = slices.Concat(r.command.Flags, flags)
	}
	for _, f := range flags {
		all = append(all, "--"+f.Names()[0])
	}
	return slices.DeleteFunc(all, func(f string) bool { return !strings.HasPrefix(f, prefix) })
}

// next is what the next argument may be: a command, or the name of a disk that is there.
func (r *reordering) next() []string {
	if len(r.args) > 0 {
		return nil
	}
	if len(r.commands) > 0 {
		var names []string
		for _, c := range r.commands {
			if !c.Hidden {
				names = append(names, c.Name)
			}
		}
		return names
	}
	c := r.command
	if c == nil || c.ArgsUsage != "NAME" || slices.Contains([]string{"create", "import"}, c.Name) {
		return nil
	}
	return disk.Names(r.stateDir())
}

// stateDir is where a command line that is not finished says the disks are.
func (r *reordering) stateDir() string {
	if i := slices.Index(r.global, "--state-dir"); i >= 0 && i+1 < len(r.global) {
		return r.global[i+1]
	}
	if dir := os.Getenv("SEALBLK_STATE_DIR"); dir != "" {
		return dir
	}
	return defaultStateDir
}
