package secret

// Buffer is a piece of locked memory.
type Buffer struct{ b []byte }
