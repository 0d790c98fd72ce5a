package cipher

// engine is one implementation of the cipher. Which ones a machine can run is for
// engines() of the architecture to say.
//
// The functions expand, encryptUnits and decryptUnits of the architecture pass a
// run on to an engine by a switch and not by a function value, so that the
// compiler sees that the buffers do not escape. A run is a number of data units of
// unitSize bytes each, a multiple of 256; the tweak of the first is the 128-bit
// number hi:lo before encryption, and lo grows by unitSize/512 from unit to unit,
// modulo 2^64. hi is zero outside of tests. decryptUnits returns how many units are
// left: it ends before one whose first 8 bytes are zero, unless skip, a number, is not.
// What will be needed soon changes nothing but the time.
type engine uint8

const (
	engineGeneric engine = iota
	engineAESNI
	engineVAES
)

func (e engine) String() string {
	switch e {
	case engineAESNI:
		return "aesni"
	case engineVAES:
		return "vaes"
	default:
		return "generic"
	}
}
