package luks

import (
	stdpbkdf2 "crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"math/rand"
	"testing"
)

// TestPBKDF2 compares with the standard library, and with one value computed by
// OpenSSL 3 (openssl kdf -kdfopt digest:SHA256 ... PBKDF2).
func TestPBKDF2(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	for i := range 50 {
		key, salt := make([]byte, keySize), make([]byte, 1+rng.Intn(maxSalt))
		rng.Read(key)
		rng.Read(salt)
		n := 1 + rng.Intn(50)
		want, err := stdpbkdf2.Key(sha256.New, string(key), salt, n, sha256.Size)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pbkdf2(key, salt, n)
		if err != nil || string(got[:]) != string(want) {
			t.Fatalf("case %d, %d iterations: %x, %v, want %x", i, n, got, err, want)
		}
	}
	got, err := pbkdf2(testKey(1), []byte("0123456789abcdef0123456789abcdef"), 1000)
	if want := opensslDigest; err != nil || hex.EncodeToString(got[:]) != want {
		t.Errorf("%x, %v, want %s", got, err, want)
	}
}

const opensslDigest = "3f6de284cc58e479f09db81e390927d0de76d0638e97c93d4198f2f80852ca77"

func BenchmarkVerifyKey(b *testing.B) {
	d, err := newDigest(testKey(1), minIterations)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := d.verify(testKey(1)); err != nil {
			b.Fatal(err)
		}
	}
}
