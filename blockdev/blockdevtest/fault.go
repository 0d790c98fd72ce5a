package blockdevtest

import (
	"sealblk/blockdev"
	"sealblk/blockdev/fault"
)

// Fault and what belongs to it are those of package fault, under the names that the
// tests of layers use beside their own variables called fault.
type (
	Fault        = fault.Device
	FaultOptions = fault.Options
)

// Orders of completion.
const (
	InOrder  = fault.InOrder
	Reversed = fault.Reversed
	Shuffled = fault.Shuffled
)

// NewFault is fault.New.
func NewFault(lower blockdev.Device, opts FaultOptions) *Fault { return fault.New(lower, opts) }
