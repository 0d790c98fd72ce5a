package main

import (
	"fmt"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifier tells a service manager that the service is ready (sd_notify(3)). It is
// connected before the process goes into its sandbox, which makes no sockets. Nil:
// there is no service manager.
type notifier struct{ conn *net.UnixConn }

func newNotifier() (*notifier, error) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil, nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("connect to service manager: %w", err)
	}
	return &notifier{conn}, nil
}

func (n *notifier) ready() {
	if n != nil {
		n.conn.Write([]byte(daemon.SdNotifyReady)) //nolint:errcheck // it has gone: nobody to tell
	}
}

func (n *notifier) close() {
	if n != nil {
		n.conn.Close()
	}
}
