package vhost

// watchPause makes a pause of the device, and its end, wake the session.
func (s *session) watchPause() (stop func()) {
	d, ok := s.dev.(Pausing)
	if !ok {
		return func() {}
	}
	return d.WatchPause(func() { _ = s.wake.Signal() })
}

// obeyPause ends the workers when the device is paused, which drains them, and starts
// them again after it. It is called whenever the session is awake.
func (s *session) obeyPause() error {
	if s.devicePaused() {
		s.paused = true
		return s.haltAll()
	}
	if !s.paused {
		return nil
	}
	s.paused = false
	if err := s.resume(); err != nil {
		s.log.Warn("rings do not go on after a pause", "err", err)
	}
	return nil
}

// mayLaunch tells whether rings may have workers. A ring that may not is seen to by
// obeyPause.
func (s *session) mayLaunch() bool {
	if s.devicePaused() {
		s.paused = true
	}
	return !s.paused
}

func (s *session) devicePaused() bool {
	d, ok := s.dev.(Pausing)
	return ok && d.Paused()
}
