package worker

import (
	"errors"
	"os"

	"sealblk/daemon/control"
	"sealblk/disk"
	"sealblk/internal/linkname"
	"sealblk/vhost"
	"sealblk/vhost/blk"
)

// right is the right to use what is served, which can go to another process: a
// *disk.Disk or a *file.Device.
type right interface {
	Take() error
	Release() error
}

// served is the virtio device as sessions see it. The first ring that starts takes the
// right to use the disk. When all have stopped it is given up, for a VM that migrates
// away goes on elsewhere; one that stays here starts its rings again, and takes it
// back.
type served struct {
	*blk.Device
	export *export
}

var (
	_ vhost.Device  = served{}
	_ vhost.Resting = served{}
)

// OpenQueue fails as long as another process has the right.
func (s served) OpenQueue(c vhost.QueueConfig) (vhost.Queue, error) {
	if err := s.export.take(); err != nil {
		return nil, err
	}
	return s.Device.OpenQueue(c)
}

// Rest gives up the right.
func (s served) Rest() { s.export.rest() }

func (e *export) take() error {
	if e.owner.Load() {
		return nil
	}
	size := e.device.Info().Capacity
	if err := e.right.Take(); err != nil {
		return err
	}
	e.owner.Store(true)
	if e.device.Info().Capacity != size { // it was resized after the front-end had asked
		e.blk.Resized()
	}
	e.opts.Log.Info("took the disk")
	if err := e.show(); err != nil {
		e.opts.Log.Warn("the disk is served, but other commands may not find this export", "err", err)
	}
	return nil
}

// show makes the disk's names in the catalogue lead here. A worker in a sandbox has it
// done.
func (e *export) show() error {
	if show := e.confined.Load().Show; show != nil {
		return show()
	}
	var errs []error
	for _, n := range e.names() {
		errs = append(errs, n.Put())
	}
	return errors.Join(errs...)
}

func (e *export) names() []linkname.Name {
	if e.disk == nil {
		return nil
	}
	control, runtime := e.disk.Names()
	return []linkname.Name{control, runtime}
}

// rest keeps the right if what was written cannot be flushed: nobody may go on from
// data that could be lost.
func (e *export) rest() {
	if !e.owner.Load() {
		return
	}
	if err := e.right.Release(); err != nil {
		e.opts.Log.Error("the disk cannot be handed over", "err", err)
		return
	}
	e.owner.Store(false)
	e.opts.Log.Info("all rings have stopped: the disk may be taken by an export that stands by")
}

// announce opens the control socket and tells the catalogue where the disk is served.
func (e *export) announce() (err error) {
	name, _ := e.disk.Names()
	if e.ctl, err = control.Serve(name.Own, e); err != nil {
		return err
	}
	if e.owner.Load() {
		if err := name.Put(); err != nil {
			return err
		}
	}
	return e.disk.Publish(disk.Runtime{PID: os.Getpid(), SocketPath: e.opts.SocketPath})
}

func (e *export) closeControl() {
	if e.ctl == nil {
		return
	}
	name, _ := e.disk.Names()
	if err := errors.Join(name.Remove(), e.ctl.Close()); err != nil && e.confined.Load().Release == nil {
		e.opts.Log.Warn("close control socket", "err", err)
	}
}
