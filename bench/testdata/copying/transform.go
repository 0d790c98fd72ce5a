package crypt

import "sealblk/cipher"

// transform takes the cipher's place in a build that is measured and never used: it
// moves the data through the same memory, and moves them only. What this build loses
// beside a plain export, no cipher can win.
type transform struct {
	cipher *cipher.XTS
	unit   int
}

func (t *transform) Outgoing(dst, src []byte, _ int64) { copy(dst, src) }

func (t *transform) Incoming(dst, src []byte, _ int64, _ []byte) { copy(dst, src) }

func (t *transform) Interrupted() error { return nil }
