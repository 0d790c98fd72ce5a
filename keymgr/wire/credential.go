package wire

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sealblk/internal/credential"
	"sealblk/keymgr"
)

// ReadCredential reads what a service is to know this host by. A pipe is waited for as long
// as for an answer, and until ctx ends. otherwise makes ours of any other error.
func ReadCredential(ctx context.Context, timeout time.Duration, name string, otherwise func(error) error) ([]byte, error) {
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	data, err := credential.Read(within, name)
	switch {
	case err == nil:
		return data, nil
	case within.Err() != nil:
		return nil, Silent(err)
	}
	return nil, otherwise(err)
}

// Silent gives the error of reading a credential the meaning that it has if that is a pipe
// which nobody wrote to in time: that may pass, as the silence of a server may.
func Silent(err error) error {
	if !errors.Is(err, credential.ErrSilent) {
		return err
	}
	return &keymgr.Error{
		Code: CodeNoCredentials, Hint: "write it to the pipe while the program waits, or name a file instead",
		Err: fmt.Errorf("%w: %w", keymgr.ErrUnreachable, err),
	}
}
