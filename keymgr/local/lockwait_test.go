package local

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"
)

// awaitWaiter returns when somebody waits for the lock of a folder, or when done is
// closed because nothing made him wait.
func awaitWaiter(t *testing.T, dir string, done <-chan struct{}) {
	t.Helper()
	for {
		select {
		case <-done:
			return
		default:
		}
		if waitedFor(t, dir+"/"+lockFile) {
			return
		}
		runtime.Gosched()
	}
}

// waitedFor looks into /proc/locks, where a line with an arrow is one who waits.
func waitedFor(t *testing.T, path string) bool {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	inode := fmt.Appendf(nil, ":%d ", info.Sys().(*syscall.Stat_t).Ino)
	for line := range bytes.Lines(readFile(t, "/proc/locks")) {
		if bytes.Contains(line, []byte("-> FLOCK")) && bytes.Contains(line, inode) {
			return true
		}
	}
	return false
}
