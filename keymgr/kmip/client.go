package kmip

import (
	"context"
	"errors"
	"net"
	"slices"

	"github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/payloads"
	"github.com/ovh/kmip-go/ttlv"

	"sealblk/keymgr"
	"sealblk/keymgr/wire"
)

// session is a connection with what was learnt about the server.
type session struct {
	conn    net.Conn
	turn    chan struct{} // holds one who uses the connection
	version kmip.ProtocolVersion
	// encrypts: the server wraps and unwraps, with additional authenticated data.
	encrypts bool
}

// try calls f with a connection: with the one that was kept, and, if that turns out to be
// lost, with a new one.
func (k *KMS) try(ctx context.Context, f func(context.Context, *session) error) error {
	for {
		s, kept, err := k.session(ctx)
		if err != nil {
			return err
		}
		if err = f(ctx, s); !lost(err) {
			return err
		}
		k.drop(s)
		if !kept || ctx.Err() != nil {
			return err
		}
	}
}

// lost tells whether a connection is of no more use. An answer that says no is an
// answer.
func lost(err error) bool {
	var no *refusal
	var ours *keymgr.Error
	return err != nil && !errors.As(err, &no) && !errors.As(err, &ours) && !errors.Is(err, errUnreadable)
}

// session returns the connection that is kept, or makes one.
func (k *KMS) session(ctx context.Context) (s *session, kept bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != nil {
		return k.current, true, nil
	}
	s = &session{turn: make(chan struct{}, 1), version: kmip.V1_1}
	if s.conn, err = k.config.dial(ctx); err != nil {
		return nil, false, err
	}
	if err = s.negotiate(ctx); err == nil {
		s.encrypts, err = k.chooseMode(ctx, s)
	}
	if err != nil {
		s.conn.Close()
		return nil, false, err
	}
	k.current = s
	return s, false, nil
}

// drop closes a connection that failed; the next call makes another.
func (k *KMS) drop(s *session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current == s {
		k.current = nil
	}
	s.conn.Close()
}

// versions that this program speaks.
var versions = []kmip.ProtocolVersion{kmip.V1_4, kmip.V1_3, kmip.V1_2, kmip.V1_1, kmip.V1_0}

// negotiate picks the highest version that both sides speak.
func (s *session) negotiate(ctx context.Context) error {
	out, err := ask[*payloads.DiscoverVersionsResponsePayload](ctx, s, &payloads.DiscoverVersionsRequestPayload{ProtocolVersion: versions})
	if refusedWith(err, kmip.ResultReasonOperationNotSupported) {
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
	return wire.Invalid("", "ask for KMIP 1.x on the server", "the server speaks no version of KMIP that this program does")
}

func (k *KMS) chooseMode(ctx context.Context, s *session) (encrypts bool, err error) {
	// Additional authenticated data came with KMIP 1.4.
	can := ttlv.CompareVersions(s.version, kmip.V1_4) >= 0
	switch {
	case k.config.Mode == ModeGet:
		return false, nil
	case k.config.Mode == ModeEncrypt && !can:
		return false, wire.Invalid("", "set kms.kmip.mode to get", "the server speaks KMIP %s, which cannot bind a key to its disk", s.version)
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

// ask makes one request.
func ask[Reply kmip.OperationPayload](ctx context.Context, s *session, p kmip.OperationPayload) (Reply, error) {
	var none Reply
	request := kmip.NewRequestMessage(s.version, p)
	answer, err := s.roundTrip(ctx, &request)
	if err != nil {
		return none, err
	}
	if len(answer.BatchItem) != 1 {
		return none, errUnreadable
	}
	item := answer.BatchItem[0]
	if item.ResultStatus != kmip.ResultStatusSuccess {
		return none, &refusal{p.Operation(), item.ResultReason, item.ResultMessage}
	}
	reply, ok := item.ResponsePayload.(Reply)
	if !ok {
		return none, errUnreadable
	}
	return reply, nil
}
