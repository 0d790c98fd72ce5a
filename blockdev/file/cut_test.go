package file

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
)

// TestCutFileStaysCut: no write makes a file long again that was found too short, with
// zeros where the data was.
func TestCutFileStaysCut(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		path := image(t, 1<<20)
		q := drive(t, open(t, path, o), 4)
		q.Must(rw(blockdev.Write, 0, blockdevtest.Noise(4, 1<<20)))
		if err := os.Truncate(path, 1<<19); err != nil {
			t.Fatal(err)
		}
		lost := rw(blockdev.Read, 600<<10, make([]byte, 4096))
		for range 2 {
			if err := q.Do(lost); err != blockdev.ErrShort {
				t.Errorf("read of what was cut off: %v, %x", err, lost.Buffers[0][:8])
			}
			for _, op := range []blockdev.Op{blockdev.Write, blockdev.WriteZeroes, blockdev.Flush} {
				r := &blockdev.Request{Op: op}
				if op != blockdev.Flush {
					r = rw(op, 900<<10, blockdevtest.Noise(5, 4096))
				}
				if err := q.Do(r); err != unix.EIO {
					t.Errorf("%v after the cut: %v", op, err)
				}
			}
		}
		q.Must(rw(blockdev.Read, 0, make([]byte, 4096)))
	})
}
