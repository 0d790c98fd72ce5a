package frontend

import (
	"context"
	"fmt"

	"sealblk/vhost/protocol"

	"golang.org/x/sys/unix"
)

// inflightRegion is what the front-end keeps for back-ends to come.
type inflightRegion struct {
	protocol.Inflight
	fd int
}

// shareInflight asks for a region the first time, and hands it over each time. A
// back-end may have none to give.
func (d *Disk) shareInflight() error {
	if !d.HasProtocol(protocol.ProtocolInflightShmFD) {
		return nil
	}
	if d.region == nil {
		desc, fd, err := d.Session.GetInflightFD(uint16(d.options.Queues), uint16(d.options.QueueSize))
		if err != nil {
			return err
		}
		d.region = &inflightRegion{desc, fd}
	}
	return d.Session.SetInflightFD(d.region.Inflight, d.region.fd)
}

// InflightFD is the in-flight region that the disk keeps, and the file that it lies in,
// which stays the disk's. Without a region the file is -1.
func (d *Disk) InflightFD() (protocol.Inflight, int) {
	if d.region == nil {
		return protocol.Inflight{}, -1
	}
	return d.region.Inflight, d.region.fd
}

// Reconnect goes on with another back-end after ErrDisconnected, as QEMU does: guest
// memory, rings, requests in flight and the in-flight region stay as they are. The
// back-end must offer what the one before offered. It owns s, also when it fails;
// after that it may be called again. No queue may be in use.
func (d *Disk) Reconnect(s *Session) error {
	old := d.Session
	d.Session, d.started = s, false
	_ = old.Close() // it is lost, and all its own is freed
	if err := d.takeUp(); err != nil {
		return fmt.Errorf("reconnect: %w", err)
	}
	return nil
}

// ReconnectTo is Reconnect to a back-end's socket.
func (d *Disk) ReconnectTo(ctx context.Context, path string) error {
	s, err := Dial(ctx, path)
	if err != nil {
		return err
	}
	return d.Reconnect(s)
}

func (d *Disk) takeUp() error {
	if err := d.watch(); err != nil {
		return err
	}
	d.Session.SetTimeout(d.options.Timeout)
	if err := d.renegotiate(); err != nil {
		return err
	}
	for _, q := range d.queues {
		q.base = q.Ring.deviceIndex() // all that is known without the back-end's answer
	}
	return d.Start()
}

// renegotiate insists on what was negotiated before: a driver that runs cannot be told
// of anything else.
func (d *Disk) renegotiate() error {
	features, protocolFeatures := d.Features, d.ProtocolFeatures
	err := d.negotiate()
	if err == nil && (d.Features != features || d.ProtocolFeatures != protocolFeatures) {
		err = fmt.Errorf("features %#x and %#x, not %#x and %#x: %w", d.Features, d.ProtocolFeatures, features, protocolFeatures, ErrNotOffered)
	}
	d.Features, d.ProtocolFeatures = features, protocolFeatures
	return err
}

// watch has the queues notice when the connection ends.
func (d *Disk) watch() error {
	hangup, err := d.Session.dup()
	if err != nil {
		return fmt.Errorf("watch connection: %w", err)
	}
	if d.hangup >= 0 {
		_ = unix.Close(d.hangup)
	}
	d.hangup = hangup
	for _, q := range d.queues {
		q.hangup = hangup
	}
	return nil
}
