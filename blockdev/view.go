package blockdev

// Viewer is a Queue whose device keeps its bytes in memory that this process can
// reach, so that a layer above may work on them where they are.
type Viewer interface {
	// View returns the stored bytes of a range that lies within the capacity: to read
	// them, or with op Write to replace them. It returns nil if a request has to be
	// used instead, which may change from call to call. The bytes are those of the
	// device: other requests change them at any time, and what is stored there is
	// written. They may be used until the queue is closed, or its device discards
	// the range.
	View(op Op, offset, length int64) []byte
	// Viewed tells whether an address lies in memory that View gives out. The store
	// behind it may have been cut short; then an access raises SIGBUS there.
	Viewed(addr uintptr) bool
}
