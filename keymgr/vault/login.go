package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/wire"
)

// login keeps a token.
//
//	[none] ── token ──> [have] ── 2/3 of its time ──> renew ──> [have]
//	                      │                             │ refused
//	                      └─ ended (403, own look-up) ──┴──> log in anew
type login struct {
	config Config
	client *client
	turn   chan struct{} // of one: who logs in

	ctx    context.Context // of the renewal
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	have    grant
	closed  bool
	running bool // the renewal
	changed chan struct{}
}

// grant is a token and for how long it is good from when it was given. A ttl of 0 is
// for ever.
type grant struct {
	token     string
	ttl       time.Duration
	renewable bool
	given     time.Time
}

// due is when it should be renewed: the rest of its time is for trying again.
func (g grant) due() time.Duration { return time.Until(g.given.Add(g.ttl * 2 / 3)) }

func newLogin(config Config, c *client) *login {
	l := &login{config: config, client: c, turn: make(chan struct{}, 1), changed: make(chan struct{}, 1)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

func (l *login) close() {
	l.mu.Lock()
	l.closed, l.have = true, grant{}
	l.mu.Unlock()
	l.cancel()
	l.wg.Wait()
}

// token logs in, if nobody has. With an agent that does, there is none.
func (l *login) token(ctx context.Context) (string, error) {
	if have, err := l.current(); err != nil || have.token != "" || l.byAgent() {
		return have.token, err
	}
	return l.logIn(ctx, "")
}

func (l *login) byAgent() bool { return l.config.TokenFile == "" && l.config.RoleID == "" }

func (l *login) current() (grant, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return grant{}, ErrClosed
	}
	return l.have, nil
}

// replace returns another token when this one has ended, and none when it is still good:
// then it was refused for what it may do. An error says that it cannot be told which, or
// that there is no other.
func (l *login) replace(ctx context.Context, token string) (fresh string, err error) {
	ended, err := l.ended(ctx, token)
	switch {
	case err != nil || !ended:
		return "", err
	case l.byAgent():
		return "", badToken("see that the agent logs in")
	}
	if fresh, err = l.logIn(ctx, token); fresh == token {
		return "", err
	}
	return fresh, err
}

func (l *login) ended(ctx context.Context, token string) (bool, error) {
	answer, err := l.client.send(ctx, token, request{http.MethodGet, "auth/token/lookup-self", nil})
	answer.Destroy()
	if isDenied(err) {
		return true, nil
	}
	return false, err
}

func badToken(hint string) error {
	return &keymgr.Error{
		Code: CodeAccessDenied, Hint: hint,
		Err: fmt.Errorf("log in: the token is not valid (any more): %w", keymgr.ErrCredentials),
	}
}

// logIn gets a token in place of an old one, unless somebody just did.
func (l *login) logIn(ctx context.Context, old string) (string, error) {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { <-l.turn }()
	if have, err := l.current(); err != nil || have.token != old {
		return have.token, err
	}
	got, err := l.obtain(ctx)
	if err != nil {
		return "", err
	}
	return got.token, l.keep(got)
}

// keep takes a grant, and sees to its renewal.
func (l *login) keep(g grant) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.have = g
	if !l.running {
		l.running = true
		l.wg.Go(l.renewals)
	}
	select {
	case l.changed <- struct{}{}:
	default:
	}
	return nil
}

func (l *login) obtain(ctx context.Context) (grant, error) {
	if l.config.TokenFile != "" {
		return l.fromFile(ctx)
	}
	return l.byAppRole(ctx)
}

func (l *login) fromFile(ctx context.Context) (grant, error) {
	token, err := l.config.readCredential(ctx, "token_file", l.config.TokenFile)
	if err != nil {
		return grant{}, err
	}
	answer, err := l.client.send(ctx, token, request{http.MethodGet, "auth/token/lookup-self", nil})
	if isDenied(err) {
		return grant{}, badToken("put a token that is valid into " + l.config.TokenFile)
	}
	if err != nil {
		return grant{}, err
	}
	defer answer.Destroy()
	var reply struct {
		Data struct {
			TTL       int64 `json:"ttl"` // seconds
			Renewable bool  `json:"renewable"`
		} `json:"data"`
	}
	if err := decode(answer, &reply); err != nil {
		return grant{}, err
	}
	return grant{token, time.Duration(reply.Data.TTL) * time.Second, reply.Data.Renewable, time.Now()}, nil
}

func (l *login) byAppRole(ctx context.Context) (grant, error) {
	secretID, err := l.config.readCredential(ctx, "secret_id_file", l.config.SecretIDFile)
	if err != nil {
		return grant{}, err
	}
	body := map[string]any{"role_id": l.config.RoleID, "secret_id": secretID}
	answer, err := l.client.send(ctx, "", request{http.MethodPut, "auth/" + l.config.appRoleMount() + "/login", body})
	if isRefusal(err) {
		return grant{}, &keymgr.Error{
			Code: CodeAccessDenied, Hint: "see role_id and approle_mount of [kms.vault], and put a secret id that is valid into " + l.config.SecretIDFile,
			Err: fmt.Errorf("log in by AppRole: %w", keymgr.ErrCredentials),
		}
	}
	if err != nil {
		return grant{}, err
	}
	defer answer.Destroy()
	return grantOf(answer)
}

// grantOf is what the answer to a log-in or a renewal grants.
func grantOf(answer *wire.Reply) (grant, error) {
	var reply struct {
		Auth struct {
			Token     string `json:"client_token"`
			TTL       int64  `json:"lease_duration"` // seconds
			Renewable bool   `json:"renewable"`
		} `json:"auth"`
	}
	if err := decode(answer, &reply); err != nil {
		return grant{}, err
	}
	if reply.Auth.Token == "" {
		return grant{}, errAnswer
	}
	return grant{reply.Auth.Token, time.Duration(reply.Auth.TTL) * time.Second, reply.Auth.Renewable, time.Now()}, nil
}

// errAnswer: an answer is not of the API. It may be a proxy's.
var errAnswer = errors.New("the server's answer is not what was expected")

// decode takes an answer that holds no data key apart.
func decode(answer *wire.Reply, to any) error {
	if json.Unmarshal(answer.Bytes(), to) != nil {
		return errAnswer
	}
	return nil
}
