package cipher

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
)

// selfTest gives the verdict of the known-answer test, which runs once, before the
// first XTS is made.
var selfTest = sync.OnceValue(func() error { return testEngines(engines(), knownAnswers) })

// knownAnswer is a run of data units of 512 bytes and the digest of its ciphertext.
type knownAnswer struct {
	sector uint64
	units  int
	text   func(unit, i int) byte // plaintext
	sum    string                 // SHA-256 of the ciphertext
}

// knownAnswerKey is the key of the XTS-AES-256 vectors of IEEE Std 1619, annex B.
const knownAnswerKey = "2718281828459045235360287471352662497757247093699959574966967627" +
	"3141592653589793238462643383279502884197169399375105820974944592"

// knownAnswers are vector 10 of IEEE Std 1619 and a run long enough to use every
// part of an engine: it has more units than any engine takes at a time, the last
// of them a remainder, and its sector numbers pass 2^32. The digests were taken of
// the standard's ciphertext and of the output of golang.org/x/crypto/xts.
var knownAnswers = []knownAnswer{{
	sector: 0xff,
	units:  1,
	text:   func(_, i int) byte { return byte(i) },
	sum:    "e97e974fa393af794f7a4684395814cf820de60a01eaec677d87b452e316b364",
}, {
	sector: 1<<32 - 20,
	units:  35,
	text:   func(unit, i int) byte { return byte(i*7 + unit*13 + i>>8) },
	sum:    "4fb99de5cd1da11eb8314033e29bfe7ba1d7011b8363a8e1474d4e421c10e452",
}}

// testEngines runs every engine through every known answer. One failure is enough
// to distrust the machine or the build, so it refuses all of them.
func testEngines(engines []engine, answers []knownAnswer) error {
	key, err := hex.DecodeString(knownAnswerKey)
	if err != nil {
		return err
	}
	for _, e := range engines {
		x, err := newXTS(e, alignedState(), key, UnitMin)
		if err != nil {
			return err
		}
		for i := range answers {
			if err := answers[i].check(x); err != nil {
				return fmt.Errorf("%s, known answer %d: %w", e, i, err)
			}
		}
	}
	return nil
}

// check encrypts out of place and decrypts in place.
func (a *knownAnswer) check(x *XTS) error {
	text := make([]byte, a.units*UnitMin)
	for i := range text {
		text[i] = a.text(i/UnitMin, i%UnitMin)
	}
	out := make([]byte, len(text))
	x.Encrypt(out, text, a.sector)
	if sum := sha256.Sum256(out); hex.EncodeToString(sum[:]) != a.sum {
		return ErrSelfTest
	}
	x.Decrypt(out, out, a.sector)
	if !bytes.Equal(out, text) {
		return ErrSelfTest
	}
	return nil
}
