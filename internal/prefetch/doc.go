// Package prefetch asks the processor for memory that will be used soon, so that it
// comes while other work is done. It changes nothing but the time that takes: an
// address that is not mapped is passed over.
package prefetch
