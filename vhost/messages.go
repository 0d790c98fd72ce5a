package vhost

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sealblk/vhost/protocol"
)

// handler serves one kind of message.
type handler struct {
	run func(*session, *protocol.Message) error
	// replies: the message has an answer of its own, which run leaves in
	// session.reply, and so is never acknowledged.
	replies bool
	// files: descriptors may come with it; run counts them. None with the others.
	files bool
}

var handlers = map[protocol.Request]handler{
	protocol.GetFeatures:         {run: (*session).getFeatures, replies: true},
	protocol.SetFeatures:         {run: (*session).setFeatures},
	protocol.GetProtocolFeatures: {run: (*session).getProtocolFeatures, replies: true},
	protocol.SetProtocolFeatures: {run: (*session).setProtocolFeatures},
	protocol.SetOwner:            {run: (*session).setOwner},
	protocol.ResetOwner:          {run: (*session).resetOwner},
	protocol.GetConfig:           {run: (*session).getConfig, replies: true},
	protocol.SetConfig:           {run: (*session).setConfig},
	protocol.SetBackendReqFD:     {run: (*session).setBackendReqFD, files: true},

	protocol.SetMemTable:    {run: (*session).setMemTable, files: true},
	protocol.GetMaxMemSlots: {run: (*session).getMaxMemSlots, replies: true},
	protocol.AddMemReg:      {run: (*session).addMemReg, files: true},
	protocol.RemMemReg:      {run: (*session).remMemReg, files: true},

	protocol.GetInflightFD: {run: (*session).getInflightFD, replies: true},
	protocol.SetInflightFD: {run: (*session).setInflightFD, files: true},
	protocol.SetLogBase:    {run: (*session).setLogBase, replies: true, files: true},
	protocol.SetLogFD:      {run: (*session).setLogFD, files: true},

	protocol.GetQueueNum:    {run: (*session).getQueueNum, replies: true},
	protocol.SetVringNum:    {run: (*session).setVringNum},
	protocol.SetVringAddr:   {run: (*session).setVringAddr},
	protocol.SetVringBase:   {run: (*session).setVringBase},
	protocol.GetVringBase:   {run: (*session).getVringBase, replies: true},
	protocol.SetVringKick:   {run: (*session).setVringKick, files: true},
	protocol.SetVringCall:   {run: (*session).setVringCall, files: true},
	protocol.SetVringErr:    {run: (*session).setVringErr, files: true},
	protocol.SetVringEnable: {run: (*session).setVringEnable},
}

// dispatch serves a message and answers it. An error ends the session.
func (s *session) dispatch(m *protocol.Message) error {
	request := protocol.Request(m.Request)
	h, known := handlers[request]
	s.reply = s.reply[:0]
	err := admit(m, h, known)
	if err == nil {
		err = h.run(s, m)
	}
	if h.replies {
		if err != nil {
			return err
		}
		return s.answer(request)
	}
	return s.acknowledge(m, err)
}

// answer sends the reply of a message that has one, and a descriptor if one belongs
// to it.
func (s *session) answer(request protocol.Request) error {
	h := protocol.NewHeader(request, protocol.FlagReply)
	if s.replyFD < 0 {
		return s.conn.WriteMessage(h, s.reply)
	}
	err := s.conn.WriteMessage(h, s.reply, s.replyFD)
	err = errors.Join(err, unix.Close(s.replyFD))
	s.replyFD = -1
	return err
}

func admit(m *protocol.Message, h handler, known bool) error {
	switch {
	case !known:
		return ErrUnknownRequest
	case m.IsReply():
		return ErrReply
	case !h.files:
		return wantFiles(m, 0)
	}
	return nil
}

// acknowledge answers a message that has no answer of its own, if the front-end
// asked for it: zero for success. A failure that it thus learns of does not end the
// session, unless the message broke the protocol.
func (s *session) acknowledge(m *protocol.Message, failed error) error {
	if !m.NeedReply() || s.protocolFeatures&(1<<protocol.ProtocolReplyAck) == 0 {
		return failed
	}
	status := uint64(0)
	if failed != nil {
		status = 1
	}
	header := protocol.NewHeader(protocol.Request(m.Request), protocol.FlagReply)
	err := s.conn.WriteMessage(header, protocol.AppendU64(s.reply[:0], status))
	if err != nil || failed != nil && breaksProtocol(failed) {
		return errors.Join(failed, err)
	}
	if failed != nil {
		s.log.Warn("request refused", "request", protocol.Request(m.Request).String(), "err", failed)
	}
	return nil
}

func wantFiles(m *protocol.Message, n int) error {
	if m.Files.Len() != n {
		return fmt.Errorf("%d file descriptors, not %d: %w", m.Files.Len(), n, ErrFileCount)
	}
	return nil
}
