package vhost

import "time"

// SetFaultPatience is for tests that do not want to wait for it.
func SetFaultPatience(d time.Duration) (restore func()) {
	old := faultPatience
	faultPatience = d
	return func() { faultPatience = old }
}
