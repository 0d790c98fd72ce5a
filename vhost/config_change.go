package vhost

import (
	"errors"

	"golang.org/x/sys/unix"

	"sealblk/vhost/protocol"
)

// ConfigWatched is a Device whose configuration space changes by itself. Its session
// tells the front-end.
type ConfigWatched interface {
	// WatchConfig has changed called after each change, from any goroutine, until
	// stop has returned.
	WatchConfig(changed func()) (stop func())
}

// watchConfig makes changes of the configuration space wake the session.
func (s *session) watchConfig() (stop func()) {
	d, ok := s.dev.(ConfigWatched)
	if !ok {
		return func() {}
	}
	return d.WatchConfig(func() {
		s.configChanged.Store(true)
		_ = s.wake.Signal()
	})
}

// announces tells whether the front-end is to be told of a change and can be. It
// waits for a front-end that has not passed its channel yet.
func (s *session) announces() bool {
	const both = 1<<protocol.ProtocolConfig | 1<<protocol.ProtocolBackendReq
	return s.configChanged.Load() && s.backend != nil && s.protocolFeatures&both == both
}

// announceFD is what to wait on for room in the channel, where that is needed.
func (s *session) announceFD() int32 {
	if s.announces() {
		return s.backend.waitFD()
	}
	return -1
}

// announce tells the front-end, once for all changes up to now. It neither waits for
// room in the channel nor asks for an answer: a front-end that reads the
// configuration space before it answers, as QEMU does, waits for this goroutine
// meanwhile. One that closed its end does not want to know.
func (s *session) announce() {
	if !s.announces() {
		return
	}
	s.configChanged.Store(false) // before the message: what changes after it is told again
	header := protocol.NewHeader(protocol.BackendConfigChangeMsg, 0)
	switch _, err := unix.Write(s.backend.fd, header.Append(nil)); {
	case err == nil:
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		s.configChanged.Store(true)
	default:
		s.log.Warn("back-end channel is closed", "err", err)
		s.backend.close()
		s.backend = nil
	}
}
