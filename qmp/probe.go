package qmp

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"
)

// probeTimeout is how long a back-end may take to answer. QEMU has no such limit:
// it halts the guest until the answer comes.
const probeTimeout = 3 * time.Second

// The one vhost-user message that may come first, and its reply's size.
const (
	vhostGetFeatures = 1
	vhostVersion     = 1
	vhostReplyFlag   = 1 << 2
	vhostHeader      = 12
	vhostU64         = 8
)

// probeBackend asks the back-end for its features and leaves.
func probeBackend(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return fail(ErrBackend, "start the export of the disk first", "%s", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := askFeatures(conn); err != nil {
		if ctx.Err() != nil {
			err = errors.New("no reply in time")
		}
		return fail(ErrBackend, "one export serves one VM: detach the disk from the other first, or restart the export",
			"socket %s: %s", path, err)
	}
	return nil
}

func askFeatures(conn net.Conn) error {
	var buf [vhostHeader + vhostU64]byte
	le := binary.NativeEndian
	le.PutUint32(buf[0:], vhostGetFeatures)
	le.PutUint32(buf[4:], vhostVersion)
	if _, err := conn.Write(buf[:vhostHeader]); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, buf[:]); err != nil {
		return err
	}
	if le.Uint32(buf[0:]) != vhostGetFeatures || le.Uint32(buf[4:])&vhostReplyFlag == 0 || le.Uint32(buf[8:]) != vhostU64 {
		return errors.New("not a vhost-user back-end")
	}
	return nil
}
