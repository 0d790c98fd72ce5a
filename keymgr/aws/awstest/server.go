package awstest

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"sealblk/keymgr/kmstest"
)

// Server is moto, mended (see mended), behind a proxy.
type Server struct {
	// URL is where the program under test connects.
	URL string
	// Net loses the server, where it is told to.
	Net *kmstest.Proxy
	// Admin does what the program under test has no business with.
	Admin *kms.Client
	// Credentials is a file with an access key.
	Credentials string

	mu     sync.Mutex
	answer *Answer
	times  int
	calls  []string
	made   map[string]bool // keys
	denied map[string]bool
	states map[string]types.KeyState // of keys that were changed
	// rotations of each key.
	rotations map[string]int
}

// Answer is what comes instead of moto's.
type Answer struct {
	Status int
	// Code is the name of the exception, Message its text.
	Code, Message string
	// Body replaces both, if it is set.
	Body string
}

// Start runs moto until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	moto, err := url.Parse(startMoto(t))
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		made: make(map[string]bool), denied: make(map[string]bool),
		states: make(map[string]types.KeyState), rotations: make(map[string]int),
	}
	backend := httputil.NewSingleHostReverseProxy(moto)
	backend.ErrorLog = log.New(io.Discard, "", 0) // clients that go are part of the tests
	mended := httptest.NewServer(s.mended(backend))
	t.Cleanup(mended.Close)
	front := httptest.NewServer(s.faulty(s.mended(backend)))
	t.Cleanup(front.Close)
	s.Net = kmstest.NewProxy(t, strings.TrimPrefix(front.URL, "http://"))
	s.URL = "http://" + s.Net.Addr()
	s.Admin = kms.New(kms.Options{
		Region: Region, BaseEndpoint: &mended.URL,
		HTTPClient:  &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		Credentials: credentials.NewStaticCredentialsProvider("AKIAADMIN", "admin", ""),
	})
	s.Credentials = filepath.Join(t.TempDir(), "credentials")
	text := "[default]\naws_access_key_id = AKIASEALBLKTEST\naws_secret_access_key = open-sesame\n"
	if err := os.WriteFile(s.Credentials, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// faulty gives the answers that a test wants, else those of the KMS.
func (s *Server) faulty(kms http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a := s.next(operationOf(r)); a != nil {
			a.write(w)
			return
		}
		kms.ServeHTTP(w, r)
	})
}

// next notes a call and picks its answer; nil is moto's own.
func (s *Server) next(operation string) *Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, operation)
	if s.times == 0 {
		return nil
	}
	s.times--
	return s.answer
}

func (a *Answer) write(w http.ResponseWriter) {
	body := a.Body
	if body == "" {
		body = `{"__type":"` + a.Code + `","message":"` + a.Message + `"}`
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(a.Status)
	w.Write([]byte(body)) //nolint:errcheck // the client may have gone
}

// Fail answers the next calls so, in moto's place.
func (s *Server) Fail(times int, a Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times, s.answer = times, &a
}

// Throttle refuses the next calls as AWS does under load.
func (s *Server) Throttle(times int) {
	s.Fail(times, Answer{Status: http.StatusBadRequest, Code: "ThrottlingException", Message: "Rate exceeded"})
}

// Calls are the operations that were asked for since the last time.
func (s *Server) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

// NewKey makes a CMK and returns its id.
func (s *Server) NewKey(t testing.TB) string {
	t.Helper()
	out, err := s.Admin.CreateKey(context.Background(), &kms.CreateKeyInput{Description: aws.String("for a test")})
	if err != nil {
		t.Fatal(err)
	}
	id := *out.KeyMetadata.KeyId
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made[id] = true
	return id
}
