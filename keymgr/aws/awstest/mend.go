package awstest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// mended is moto with what it leaves out, as the API reference of AWS KMS has it:
//
//   - the use of a key that is disabled or pending deletion is refused;
//   - so is a blob in the name of a key that did not make it;
//   - the entries of an encryption context do not run together (moto joins them without
//     anything between);
//   - answers tell the id of the key's material, which a rotation changes.
func (s *Server) mended(moto http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has gone
		}
		var a asked
		if err := json.Unmarshal(body, &a); err != nil {
			(&Answer{Status: http.StatusBadRequest, Code: "SerializationException"}).write(w)
			return
		}
		operation := operationOf(r)
		if answer := s.refusal(operation, a); answer != nil {
			answer.write(w)
			return
		}
		body = separate(body)
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		answer := httptest.NewRecorder()
		moto.ServeHTTP(answer, r)
		s.note(operation, a)
		w.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
		w.WriteHeader(answer.Code)
		w.Write(s.withMaterial(operation, answer.Body.Bytes())) //nolint:errcheck // the client may have gone
	})
}

func operationOf(r *http.Request) string {
	return strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
}

// asked are the fields of a request that say which keys it is about.
type asked struct {
	KeyId            string
	SourceKeyId      string
	DestinationKeyId string
	CiphertextBlob   []byte
}

// uses are the operations that a key's state stops.
var uses = map[string]bool{
	"GenerateDataKey": true, "GenerateDataKeyWithoutPlaintext": true, "Encrypt": true, "Decrypt": true, "ReEncrypt": true,
}

func (s *Server) refusal(operation string, a asked) *Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range []string{a.KeyId, a.SourceKeyId, a.DestinationKeyId} {
		switch {
		case !uses[operation]:
		case s.denied[key]:
			return refuse("AccessDeniedException", "User is not authorized to perform this on resource "+key)
		case s.states[key] == types.KeyStateDisabled:
			return refuse("DisabledException", key+" is disabled.")
		case s.states[key] == types.KeyStatePendingDeletion:
			return refuse("KMSInvalidStateException", key+" is pending deletion.")
		}
	}
	return s.wrongKeyLocked(a)
}

// wrongKeyLocked looks for the key's id in the blob, where moto puts it.
func (s *Server) wrongKeyLocked(a asked) *Answer {
	maker, _, _ := strings.Cut(string(a.CiphertextBlob[:min(len(a.CiphertextBlob), 36)]), "\x00")
	named := a.KeyId + a.SourceKeyId // one of them
	switch {
	case a.CiphertextBlob == nil || named == maker || named == "":
		return nil
	case s.made[maker] && s.made[named]:
		return refuse("IncorrectKeyException", "")
	case s.made[named]:
		return refuse("InvalidCiphertextException", "")
	}
	return nil // for moto to say that there is no such key
}

func refuse(code, message string) *Answer {
	return &Answer{Status: http.StatusBadRequest, Code: code, Message: message}
}

// separate makes one entry of each encryption context.
func separate(body []byte) []byte {
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return body
	}
	for _, name := range []string{"EncryptionContext", "SourceEncryptionContext", "DestinationEncryptionContext"} {
		var context map[string]string
		if json.Unmarshal(fields[name], &context) != nil || len(context) == 0 {
			delete(fields, name)
			continue
		}
		text, _ := json.Marshal(context) // sorted; strings always encode
		fields[name], _ = json.Marshal(map[string]string{"context": string(text)})
	}
	out, err := json.Marshal(fields)
	if err != nil {
		return body
	}
	return out
}

// note keeps what an administrator did to a key.
func (s *Server) note(operation string, a asked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch operation {
	case "DisableKey", "CancelKeyDeletion":
		s.states[a.KeyId] = types.KeyStateDisabled
	case "EnableKey":
		s.states[a.KeyId] = types.KeyStateEnabled
	case "ScheduleKeyDeletion":
		s.states[a.KeyId] = types.KeyStatePendingDeletion
	case "RotateKeyOnDemand":
		s.rotations[a.KeyId]++
	}
}

// withMaterial adds the id of the material to an answer. What it does not understand it
// leaves alone.
func (s *Server) withMaterial(operation string, answer []byte) []byte {
	field, ok := map[string]string{
		"GenerateDataKey": "KeyMaterialId", "GenerateDataKeyWithoutPlaintext": "KeyMaterialId",
		"ReEncrypt": "DestinationKeyMaterialId", "DescribeKey": "CurrentKeyMaterialId",
	}[operation]
	var fields map[string]any
	if !ok || json.Unmarshal(answer, &fields) != nil {
		return answer
	}
	about := fields
	if inner, ok := fields["KeyMetadata"].(map[string]any); ok {
		about = inner
	}
	arn, ok := about["KeyId"].(string)
	if !ok {
		return answer
	}
	about[field] = s.material(arn[strings.LastIndex(arn, "/")+1:])
	if out, err := json.Marshal(fields); err == nil {
		return out
	}
	return answer
}

func (s *Server) material(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s %d", key, s.rotations[key])))
}

// Deny takes the right to use a key from everybody, as a policy does.
func (s *Server) Deny(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied[key] = true
}
