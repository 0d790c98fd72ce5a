package secret

import (
	"fmt"
	"log/slog"
)

// redacted stands for a secret wherever one is printed.
const redacted = "[secret]"

// String reveals nothing.
func (Buffer) String() string { return redacted }

// GoString reveals nothing.
func (Buffer) GoString() string { return redacted }

// Format reveals nothing, whatever the verb.
func (Buffer) Format(s fmt.State, _ rune) { fmt.Fprint(s, redacted) }

// LogValue reveals nothing.
func (Buffer) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText reveals nothing.
func (Buffer) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON reveals nothing.
func (Buffer) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
