package prefetch

// Max is the number of bytes, at most, that are asked for at once: not more than a
// processor keeps track of besides what it is doing (12 lines), or asking would wait.
const Max = 768

const line = 64

// Read asks for the first Max bytes of b, to be read.
func Read(b []byte) {
	if len(b) > 0 {
		read(&b[0], (min(len(b), Max)+line-1)/line)
	}
}

// Line asks for the line that b begins in, to be read.
func Line(b []byte) {
	if len(b) > 0 {
		read(&b[0], 1)
	}
}

// Write asks for the first Max bytes of b, to be written.
func Write(b []byte) {
	if len(b) > 0 {
		write(&b[0], (min(len(b), Max)+line-1)/line)
	}
}

//go:noescape
func read(p *byte, lines int)

//go:noescape
func write(p *byte, lines int)
