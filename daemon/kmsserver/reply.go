package kmsserver

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"sealblk/internal/sigmask"
	"sealblk/keymgr/secret"
)

// secretReply is a reply with a plaintext in it.
type secretReply struct {
	// public is the rest of the reply.
	public any
	// plaintext is sent as Base64, under the name Plaintext, and destroyed.
	plaintext *secret.Buffer
}

const contentType = "application/json; charset=utf-8"

// send writes a reply: the members of a struct and the request's id.
func send(w http.ResponseWriter, id string, reply any) error {
	hidden, isSecret := reply.(*secretReply)
	if isSecret {
		defer hidden.plaintext.Destroy()
		reply = hidden.public
	}
	body, err := encodeReply(id, reply)
	if err != nil {
		return err
	}
	if isSecret {
		return sendSecret(w, id, body, hidden.plaintext)
	}
	writeJSON(w, id, http.StatusOK, body)
	return nil
}

// encodeReply is a JSON object.
func encodeReply(id string, reply any) ([]byte, error) {
	members, err := json.Marshal(reply)
	if err != nil {
		return nil, fmt.Errorf("encode reply: %w", err)
	}
	head := fmt.Sprintf(`{"RequestId":%q`, id)
	if string(members) == "{}" || string(members) == "null" {
		return []byte(head + "}"), nil
	}
	return append([]byte(head+","), members[1:]...), nil
}

func writeFault(w http.ResponseWriter, id string, f *fault) {
	status := statusOf(f.code)
	body, _ := json.Marshal(map[string]any{ // of strings and a number: it does not fail
		"HttpStatus": status, "Code": f.code, "Message": f.message, "RequestId": id, "HostId": "sealblk",
	})
	writeJSON(w, id, status, body)
}

func writeJSON(w http.ResponseWriter, id string, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Acs-Request-Id", id)
	w.WriteHeader(status)
	w.Write(body) //nolint:errcheck // the client has gone: nobody is left to tell
}

// sendSecret writes a whole response to the connection, which it takes from net/http and
// closes; what is secret in it comes from locked memory.
func sendSecret(w http.ResponseWriter, id string, body []byte, plaintext *secret.Buffer) error {
	public, hidden, err := secretResponse(id, body, plaintext)
	if err != nil {
		return err
	}
	defer hidden.Destroy()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fmt.Errorf("take connection over: %w", err)
	}
	defer conn.Close()
	writeSecret(conn, public, hidden)
	return nil
}

// writeSecret does not say whether the client got it: it is gone if it did not. The
// public part goes first, in a record of its own: a connection of crypto/tls encrypts a
// record in the buffer that the one before has made large enough, or else leaves the
// plaintext in one that is not.
func writeSecret(conn net.Conn, public []byte, hidden *secret.Buffer) {
	conn.SetDeadline(time.Now().Add(grace)) //nolint:errcheck // Write fails then
	sigmask.Do(func() error {               //nolint:errcheck // the client has gone
		if _, err := conn.Write(public); err != nil {
			return err
		}
		_, err := conn.Write(hidden.Bytes())
		return err
	})
}

// secretResponse is a response in two parts: header and body, and the end of the body
// with the plaintext.
func secretResponse(id string, body []byte, plaintext *secret.Buffer) (public []byte, hidden *secret.Buffer, err error) {
	const open, shut = `"Plaintext":"`, `"}`
	size := base64.StdEncoding.EncodedLen(plaintext.Len())
	hidden, err = secret.New(len(open) + size + len(shut))
	if err != nil {
		return nil, nil, err
	}
	err = sigmask.Do(func() error {
		b := hidden.Bytes()
		b = b[copy(b, open):]
		base64.StdEncoding.Encode(b, plaintext.Bytes())
		copy(b[size:], shut)
		return nil
	})
	if err != nil {
		hidden.Destroy()
		return nil, nil, err
	}
	public = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\nCache-Control: no-store\r\n"+
		"X-Acs-Request-Id: %s\r\nConnection: close\r\n\r\n%s,", contentType, len(body)+hidden.Len(), id, body[:len(body)-1])
	return public, hidden, nil
}
