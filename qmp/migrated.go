package qmp

import (
	"context"
	"fmt"
)

// Migrated tells whether the machine's guest has moved to another machine. What is left
// of it here does nothing any more, and releases no device.
func Migrated(ctx context.Context, mon Executor) (bool, error) {
	ctx, cancel := withDefaultTimeout(ctx, questionTimeout)
	defer cancel()
	var s struct {
		Status string `json:"status"`
	}
	if err := mon.Execute(ctx, "query-status", nil, &s); err != nil {
		return false, fmt.Errorf("look whether the guest is there: %w", err)
	}
	return s.Status == "postmigrate", nil
}
