package qmp

import (
	"context"

	goqemu "github.com/digitalocean/go-qemu/qmp"
)

// EventQueue is the number of events that wait for a subscriber at most.
const EventQueue = 256

// subscriber receives events; the session's mu guards its channel against use
// after close.
type subscriber struct {
	ch   chan goqemu.Event
	stop func() bool // ends the watch on the subscriber's context
}

// subscribe makes a channel of all events from now on. It is closed when the
// context or the session ends.
func (s *session) subscribe(ctx context.Context) (<-chan goqemu.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, s.err
	}
	sub := &subscriber{ch: make(chan goqemu.Event, EventQueue)}
	sub.stop = context.AfterFunc(ctx, func() { s.unsubscribe(sub) })
	s.subs[sub] = struct{}{}
	return sub.ch, nil
}

func (s *session) unsubscribe(sub *subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.subs[sub]; ok {
		delete(s.subs, sub)
		close(sub.ch)
	}
}

func (s *session) closeSubscribersLocked() {
	for sub := range s.subs {
		sub.stop()
		delete(s.subs, sub)
		close(sub.ch)
	}
}

// publish gives an event to all subscribers and never waits for one.
func (s *session) publish(e goqemu.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.subs {
		for !sub.offer(e) {
			s.dropOldest(sub)
		}
	}
}

func (sub *subscriber) offer(e goqemu.Event) bool {
	select {
	case sub.ch <- e:
		return true
	default:
		return false
	}
}

// dropOldest makes room, unless the subscriber just did.
func (s *session) dropOldest(sub *subscriber) {
	select {
	case <-sub.ch:
		s.onDrop()
	default:
	}
}
