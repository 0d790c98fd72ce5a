package bench

import (
	"context"
	"path/filepath"
	"strconv"
	"time"
)

const exportDisk = "bench"

// startExport starts our own server on a new disk, with a state directory of its own.
func startExport(ctx context.Context, t *Target, h *Host, s *Server) error {
	program := t.program
	if program == "" {
		program = h.Program
	}
	state := filepath.Join(filepath.Dir(s.Socket), "state")
	backend := t.backend
	if s.data != "" {
		backend += filepath.Join(s.data, "disk")
	}
	create := []string{"--state-dir", state, "disk", "create", exportDisk, "--size", strconv.FormatInt(h.Size, 10), "--backend", backend}
	if t.Encrypted {
		s.SectorSize = h.SectorSize
		create = append(create, "--encrypted", "--sector-size", strconv.Itoa(h.SectorSize))
	}
	if err := s.command(ctx, program, create...); err != nil {
		return err
	}
	args := []string{"--state-dir", state, "export", exportDisk, "--socket-path", s.Socket, "--num-queues", strconv.Itoa(h.Queues)}
	if h.PollMaxNs >= 0 { // an older build of ours, as a target, may not know the flag
		args = append(args, "--poll-max", time.Duration(h.PollMaxNs).String())
	}
	err := s.launch(h, program, args...)
	if err != nil {
		return err
	}
	return s.awaitSocket(ctx)
}
