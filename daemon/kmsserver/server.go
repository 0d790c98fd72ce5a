package kmsserver

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"sealblk/keymgr/local"
)

const (
	// MaxConnections is how many connections are open at a time.
	MaxConnections = 1024
	// defaultRequests are answered at a time unless Options say otherwise.
	defaultRequests = 64

	grace = 5 * time.Second
)

// Options of a server.
type Options struct {
	// MaxRequests are answered at a time, 64 if it is 0; more are refused.
	MaxRequests int
	// Now is the clock; nil: the system's.
	Now func() time.Time
	// Log has a line for each request; nil: none.
	Log *slog.Logger
}

// Server answers requests with an embedded KMS. It is an http.Handler, for tests; use
// Serve, which sets the limits.
type Server struct {
	kms     *local.KMS
	region  string
	keys    *AccessKeys
	now     func() time.Time
	log     *slog.Logger
	replays *replays
	imports *imports
	// slots are held by the requests that are being answered.
	slots chan struct{}
	// handling counts the calls of ServeHTTP, what they log included.
	handling sync.WaitGroup
	grace    time.Duration
}

// New makes a server of a KMS in its region. Both kms and keys stay the caller's to
// close, after Serve.
func New(kms *local.KMS, region string, keys *AccessKeys, o Options) *Server {
	s := &Server{kms: kms, region: region, keys: keys, now: o.Now, log: o.Log, grace: grace}
	if s.region == "" {
		s.region = local.DefaultRegion
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if o.MaxRequests == 0 {
		o.MaxRequests = defaultRequests
	}
	s.slots = make(chan struct{}, o.MaxRequests)
	s.replays, s.imports = newReplays(s.now()), newImports()
	return s
}

// CheckListener refuses an address ("HOST:PORT") that other hosts can reach, unless TLS
// is used.
func CheckListener(address string, useTLS bool) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address %q is not HOST:PORT: %w", address, err)
	}
	if useTLS {
		return nil
	}
	ip, err := netip.ParseAddr(host)
	if host == "localhost" || err == nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("listen on %s: %w: give a certificate and its key, or listen on 127.0.0.1", address, ErrPlain)
}

// Serve answers requests until ctx ends, over TLS if there is a configuration for it.
// It closes the listener.
func (s *Server) Serve(ctx context.Context, l net.Listener, config *tls.Config) error {
	if err := CheckListener(l.Addr().String(), config != nil); err != nil {
		l.Close()
		return err
	}
	l = limit(l, MaxConnections)
	if config != nil {
		l = tls.NewListener(l, config)
	}
	h := &http.Server{
		Handler: s, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 60 * time.Second,
		// HTTP/1.1 only: replies with secrets take the connection over.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		// What net/http has to say may quote what clients sent.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { stopped <- s.shutdown(h) })
	err := h.Serve(l)
	if stop() {
		return fmt.Errorf("serve KMS: %w", err) // ctx did not end it
	}
	return <-stopped
}

// shutdown lets requests end. Who has not sent all of one by then is cut off.
func (s *Server) shutdown(h *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.grace)
	defer cancel()
	err := h.Shutdown(ctx)
	if err == nil {
		err = s.drain(ctx)
	}
	if err != nil {
		err = errors.Join(err, h.Close())
	}
	if err != nil && len(s.slots) > 0 {
		return fmt.Errorf("stop: some requests were not answered within %v: %w", s.grace, err)
	}
	return nil
}

// drain waits for the requests that took their connections over, of which net/http does
// not know, and for what is logged of them. There are no new ones by then.
func (s *Server) drain(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		s.handling.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.handling.Add(1)
	defer s.handling.Done()
	start, id := s.now(), newRequestID()
	line := &logLine{}
	result := "ok"
	defer func() {
		if p := recover(); p != nil { // net/http would print it with what it knows of the request
			result = codeInternal
			s.log.Error("request panicked", "request_id", id, "action", line.action, "panic", fmt.Sprintf("%T", p))
			writeFault(w, id, &fault{codeInternal, "the request failed, see the server's log for its RequestId"})
		}
		s.log.Info("request", "request_id", id, "action", line.action, "principal", line.principal, "result", result, "took", s.now().Sub(start))
	}()
	err := s.serve(w, r, id, line)
	if err == nil {
		return
	}
	f := faultOf(err)
	result = f.code
	if statusOf(f.code) >= http.StatusInternalServerError {
		s.log.Error("request failed", "request_id", id, "action", line.action, "error", err)
	}
	writeFault(w, id, f)
}

// serve reads a request, and then takes a place to answer it in: who sends slowly, which
// needs no access key, keeps nobody else from being answered.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, id string, line *logLine) error {
	q, err := parseRequest(r)
	if err != nil {
		return err
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return faultf(codeThrottled, "there are too many requests, try again later")
	}
	reply, err := s.answer(r.Context(), q, line)
	if err != nil {
		return err
	}
	return send(w, id, reply)
}

// logLine is what a log may say of a request.
type logLine struct{ action, principal string }

// answer finds out who asks for what, and does it.
func (s *Server) answer(ctx context.Context, q *request, line *logLine) (any, error) {
	principal, err := s.authenticate(&q.claim)
	if err != nil {
		return nil, err
	}
	line.principal = principal
	a, ok := actions[q.action]
	if !ok {
		return nil, faultf(codeAction, "this server has no action %q", printable(q.action))
	}
	line.action = q.action
	if err := a.check(q.params); err != nil {
		return nil, err
	}
	c := &call{Server: s, ctx: ctx, kms: s.kms.As(principal), principal: principal, params: q.params}
	return a.do(c)
}

// authenticate finds the principal that a claim proves.
func (s *Server) authenticate(c *claim) (principal string, err error) {
	now := s.now()
	if err := s.replays.checkTime(now, c.time); err != nil {
		return "", err
	}
	err = s.keys.use(c.accessKey, func(name string, known bool, secret []byte) error {
		signed := c.holds(secret)
		switch {
		case !known:
			return faultf(codeAccessKey, "there is no access key %q, or it was deleted", printable(c.accessKey))
		case !signed:
			return faultf(codeSignature, "the signature was not made with the secret of access key %s", c.accessKey)
		}
		principal = name
		return nil
	})
	if err != nil {
		return "", err
	}
	return principal, s.replays.take(now, c)
}

// printable keeps what a client made up from filling messages.
func printable(s string) string {
	s = s[:min(len(s), 80)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// newRequestID looks like the service's: a UUID.
func newRequestID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	t := hex.EncodeToString(b[:])
	return strings.ToUpper(strings.Join([]string{t[:8], t[8:12], t[12:16], t[16:20], t[20:]}, "-"))
}
