package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// startQSD starts QEMU's own server on a raw file, or on one of its LUKS containers.
// Direct I/O is used where there is any.
func startQSD(ctx context.Context, t *Target, h *Host, s *Server) error {
	disk, passphrase := filepath.Join(s.data, "disk"), filepath.Join(filepath.Dir(s.Socket), "passphrase")
	if err := os.WriteFile(passphrase, []byte("bench"), 0o600); err != nil {
		return err
	}
	secret := "secret,id=key,file=" + passphrase
	create := []string{"create", "-q"}
	if t.Encrypted {
		create = append(create, "--object", secret, "-f", "luks", "-o", "key-secret=key,cipher-alg=aes-256,cipher-mode=xts,iter-time=10")
	} else {
		create = append(create, "-f", "raw")
	}
	if err := s.createImage(ctx, append(create, disk, strconv.FormatInt(h.Size, 10))); err != nil {
		return err
	}
	if err := s.launch(h, "qemu-storage-daemon", qsdArguments(t, h, s, disk, secret)...); err != nil {
		return err
	}
	return s.awaitSocket(ctx)
}

// imageAttempts: qemu-img times its key derivation, and gives up on a busy machine.
const imageAttempts = 5

func (s *Server) createImage(ctx context.Context, args []string) (err error) {
	for range imageAttempts {
		if err = s.command(ctx, "qemu-img", args...); err == nil || ctx.Err() != nil {
			break
		}
	}
	return err
}

func qsdArguments(t *Target, h *Host, s *Server, disk, secret string) []string {
	file := "driver=file,node-name=file,filename=" + escape(disk)
	if h.PeerDirectory != "" && checkDirect(h.PeerDirectory) == nil {
		file += ",cache.direct=on,aio=native"
	}
	thread := "iothread,id=thread"
	if h.PollMaxNs >= 0 {
		thread += fmt.Sprintf(",poll-max-ns=%d", h.PollMaxNs)
	}
	node := "file"
	args := []string{"--object", thread, "--blockdev", file}
	if t.Encrypted {
		node = "luks"
		s.SectorSize = 512
		args = append(args, "--object", secret, "--blockdev", "driver=luks,node-name=luks,file=file,key-secret=key")
	}
	export := fmt.Sprintf("type=vhost-user-blk,id=export,node-name=%s,addr.type=unix,addr.path=%s,writable=on,num-queues=%d,iothread=thread",
		node, escape(s.Socket), h.Queues)
	return append(args, "--export", export)
}

// escape is how QEMU's options take a comma.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
