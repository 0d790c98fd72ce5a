package sigmask

import (
	"errors"
	"os"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBlockHoldsSignalsBack: a signal sent to the thread is pending while blocked,
// and arrives afterwards.
func TestBlockHoldsSignalsBack(t *testing.T) {
	got := make(chan os.Signal, 1)
	signal.Notify(got, unix.SIGUSR1)
	defer signal.Stop(got)
	restore, err := Block()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	select {
	case s := <-got:
		t.Errorf("%v arrived while blocked", s)
	default:
	}
	restore()
	<-got
}

// TestFaultsStillArrive: a fault of the thread itself is a Go panic as ever.
func TestFaultsStillArrive(t *testing.T) {
	err := Do(func() (err error) {
		defer func() {
			if recover() != nil {
				err = errFault
			}
		}()
		return write(nil)
	})
	if !errors.Is(err, errFault) {
		t.Fatalf("got %v", err)
	}
}

func write(p *int) error {
	*p = 1
	return nil
}

var errFault = errors.New("fault")
