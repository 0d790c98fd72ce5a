package blockdev

// Grower is a Device whose capacity can grow while it is open.
type Grower interface {
	// Grow sets a capacity, in bytes, that is not smaller than the present one. The
	// backend has to have so many bytes already. Requests may be in flight.
	Grow(capacity int64) error
}

// Grow makes a device larger, or says ErrNotSupported if it cannot be.
func Grow(d Device, capacity int64) error {
	g, ok := d.(Grower)
	if !ok {
		return ErrNotSupported
	}
	return g.Grow(capacity)
}
