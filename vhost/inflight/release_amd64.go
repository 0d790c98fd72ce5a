package inflight

// storeRelease stores after all stores before it and before all that follow: what every
// store does on this processor (Intel SDM, volume 3, "Memory Ordering"). One that is also
// a barrier to the loads after it, as package atomic has, would wait for all data that was
// written before to reach the cache.
//
//go:noescape
func storeRelease(p *uint64, v uint64)
