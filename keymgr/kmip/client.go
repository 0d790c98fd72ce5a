package kmip

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"

	"github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/kmipclient"
	"github.com/ovh/kmip-go/payloads"
	"github.com/ovh/kmip-go/ttlv"
)

// errDropped: another call found the connection lost.
var errDropped = errors.New("the connection was lost")

// session is a connection with what was learnt about the server. The library makes the
// connection anew when the server closed it in peace.
type session struct {
	client  *kmipclient.Client
	version kmip.ProtocolVersion
	// encrypts: the server wraps and unwraps, with additional authenticated data.
	encrypts bool

	mu     sync.Mutex
	conn   net.Conn // the latest
	closed bool
}

// dialer makes the connections of a session. The library does not bear one that cannot
// be made anew: it gets one from which nothing can be read.
func (s *session) dialer(c *Config) kmipclient.DialerFunc {
	return func(ctx context.Context) (net.Conn, error) {
		nc, err := c.dial(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil && s.closed {
			nc.Close()
			err = errDropped
		}
		switch {
		case err == nil:
			s.conn = nc
		case s.conn != nil:
			return dead{err: err}, nil
		}
		return nc, err
	}
}

// dead is a connection that was not made.
type dead struct {
	net.Conn
	err error
}

func (d dead) Read([]byte) (int, error)    { return 0, d.err }
func (d dead) Write(p []byte) (int, error) { return len(p), nil } // see conn
func (d dead) Close() error                { return nil }

// close ends the connection, and with it the goroutines of the library. The library's
// own Close does not bear a connection that was lost, nor calls at the same time.
func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.conn != nil {
		s.conn.Close()
	}
}

// session returns the connection, made now if there is none.
func (k *KMS) session(ctx context.Context) (*session, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != nil {
		return k.current, nil
	}
	// The version is negotiated here: the library takes the first that a server names.
	s := &session{version: kmip.V1_1}
	var err error
	s.client, err = kmipclient.DialContext(ctx, k.config.Address,
		kmipclient.WithDialerUnsafe(s.dialer(&k.config)), kmipclient.EnforceVersion(s.version))
	if err == nil {
		err = s.negotiate(ctx)
	}
	if err == nil {
		s.encrypts, err = k.chooseMode(ctx, s)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	k.current = s
	return s, nil
}

// drop closes a connection that failed; the next call makes another.
func (k *KMS) drop(s *session) {
	k.mu.Lock()
	if k.current == s {
		k.current = nil
	}
	k.mu.Unlock()
	s.close()
}

// versions that this program speaks.
var versions = []kmip.ProtocolVersion{kmip.V1_4, kmip.V1_3, kmip.V1_2, kmip.V1_1, kmip.V1_0}

// negotiate picks the highest version that both sides speak.
func (s *session) negotiate(ctx context.Context) error {
	out, err := ask[*payloads.DiscoverVersionsResponsePayload](ctx, s, &payloads.DiscoverVersionsRequestPayload{ProtocolVersion: versions})
	var no *refusal
	if errors.As(err, &no) && no.reason == kmip.ResultReasonOperationNotSupported {
		s.version = kmip.V1_0 // which had no such operation
		return nil
	}
	if err != nil {
		return err
	}
	for _, v := range versions {
		if slices.Contains(out.ProtocolVersion, v) {
			s.version = v
			return nil
		}
	}
	return invalid("", "ask for KMIP 1.x on the server", "the server speaks no version of KMIP that this program does")
}

// speak sets the version of a request.
func (s *session) speak(r *kmip.RequestMessage) { r.Header.ProtocolVersion = s.version }

func (k *KMS) chooseMode(ctx context.Context, s *session) (encrypts bool, err error) {
	// Additional authenticated data came with KMIP 1.4.
	can := ttlv.CompareVersions(s.version, kmip.V1_4) >= 0
	switch {
	case k.config.Mode == ModeGet:
		return false, nil
	case k.config.Mode == ModeEncrypt && !can:
		return false, invalid("", "set kms.kmip.mode to get", "the server speaks KMIP %s, which cannot bind a key to its disk", s.version)
	case k.config.Mode == ModeEncrypt:
		return true, nil
	case !can:
		return false, nil
	}
	out, err := ask[*payloads.QueryResponsePayload](ctx, s, &payloads.QueryRequestPayload{
		QueryFunction: []kmip.QueryFunction{kmip.QueryFunctionOperations},
	})
	if err != nil {
		return false, err
	}
	return slices.Contains(out.Operations, kmip.OperationEncrypt) && slices.Contains(out.Operations, kmip.OperationDecrypt), nil
}

// ask makes one request. A failure that is not a *refusal means that the connection
// cannot be used any more.
func ask[Reply kmip.OperationPayload](ctx context.Context, s *session, p kmip.OperationPayload) (Reply, error) {
	var none Reply
	items, err := s.client.BatchOpt(ctx, []kmip.OperationPayload{p}, s.speak)
	if err != nil {
		return none, err
	}
	if len(items) != 1 {
		return none, errUnreadable
	}
	if items[0].ResultStatus != kmip.ResultStatusSuccess {
		return none, &refusal{p.Operation(), items[0].ResultReason, items[0].ResultMessage}
	}
	reply, ok := items[0].ResponsePayload.(Reply)
	if !ok {
		return none, errUnreadable
	}
	return reply, nil
}
