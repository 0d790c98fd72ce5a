package faults

import (
	"flag"
	"testing"

	"sealblk/internal/leaktest"
)

// usual is how often a property is tried if the command line does not say.
const usual = "8"

func TestMain(m *testing.M) {
	setChecks(usual) // the command line comes later
	flag.Parse()
	if testing.Short() && flag.Lookup("rapid.checks").Value.String() == usual {
		setChecks("3")
	}
	leaktest.Main(m)
}

func setChecks(n string) {
	if err := flag.Set("rapid.checks", n); err != nil {
		panic(err)
	}
}
