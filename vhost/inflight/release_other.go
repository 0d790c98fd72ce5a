//go:build !amd64

package inflight

import "sync/atomic"

// storeRelease stores after all stores before it and before all that follow.
func storeRelease(p *uint64, v uint64) { atomic.StoreUint64(p, v) }
