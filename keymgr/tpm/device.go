package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/keymgr"
)

const (
	maxAnswer = 4096 // of every TPM; longer commands and answers do not exist
	header    = 10   // tag, size, code
	// deadline of one command on a socket.
	deadline = 30 * time.Second
)

// device is a connection to a TPM. It is a transport of go-tpm that remembers what the
// TPM answered, so that it can be wiped.
type device struct {
	conn io.ReadWriteCloser
	seen [][]byte
}

// open connects to the TPM.
func (s Source) open() (*device, error) {
	path := s.device()
	conn, err := connect(path)
	if err == nil {
		return &device{conn: conn}, nil
	}
	hint := "load the driver of the TPM, or switch it on in the firmware"
	switch {
	case errors.Is(err, fs.ErrPermission):
		hint = "run this as root, or join the group tss"
	case errors.Is(err, unix.EBUSY):
		hint = "use " + DefaultDevice + ", which programs share"
	case path != DefaultDevice:
		hint = "correct tpm_device in the configuration"
	}
	return nil, &keymgr.Error{Hint: hint, Err: fmt.Errorf("open TPM: %w: %w", keymgr.ErrUnreachable, err)}
}

func connect(path string) (io.ReadWriteCloser, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Type() == fs.ModeSocket {
		return net.DialTimeout("unix", path, deadline)
	}
	// The driver answers a blocking descriptor when it has the answer.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Send makes one command and returns the answer.
func (d *device) Send(command []byte) ([]byte, error) {
	if c, ok := d.conn.(net.Conn); ok {
		if err := c.SetDeadline(time.Now().Add(deadline)); err != nil {
			return nil, err
		}
	}
	if _, err := d.conn.Write(command); err != nil {
		return nil, fmt.Errorf("send to TPM: %w: %w", keymgr.ErrUnreachable, err)
	}
	answer, err := readAnswer(d.conn)
	if err != nil {
		return nil, fmt.Errorf("receive from TPM: %w: %w", keymgr.ErrUnreachable, err)
	}
	d.seen = append(d.seen, answer)
	return answer, nil
}

// readAnswer reads as much as the answer says that it has.
func readAnswer(r io.Reader) ([]byte, error) {
	buf := make([]byte, maxAnswer)
	n, size := 0, header
	for n < size {
		got, err := r.Read(buf[n:])
		if err != nil {
			return nil, err
		}
		if n += got; n >= header {
			size = int(binary.BigEndian.Uint32(buf[2:]))
		}
		if size < header || size > maxAnswer || got == 0 {
			return nil, errors.New("the answer is malformed")
		}
	}
	if n > size {
		return nil, errors.New("there is more than one answer")
	}
	return buf[:n], nil
}

// close wipes what the TPM said.
func (d *device) close() {
	for _, b := range d.seen {
		clear(b)
	}
	d.conn.Close()
}
