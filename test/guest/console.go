package guest

import (
	"io"
	"strings"
	"sync"
)

// maxConsole is how much of the console's end is kept, in bytes.
const maxConsole = 1 << 20

// console keeps the end of what the guest's kernel and QEMU itself say.
type console struct {
	also io.Writer // nil for nobody

	mu   sync.Mutex
	text []byte
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.also != nil {
		_, _ = c.also.Write(p)
	}
	c.text = append(c.text, p...)
	if over := len(c.text) - maxConsole; over > 0 {
		c.text = append(c.text[:0], c.text[over:]...)
	}
	return len(p), nil
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}

// last is the last line that says something.
func (c *console) last() string { return lastLine(c.String()) }

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return strings.TrimSpace(text[strings.LastIndex(text, "\n")+1:])
}
