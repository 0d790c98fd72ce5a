package spin

// Pause tells the processor that it is in such a loop: n times the PAUSE instruction,
// which lets the other thread of the core have the execution units (Intel SDM,
// volume 2, "PAUSE"). It takes some ten nanoseconds each.
func Pause(n uint32)
