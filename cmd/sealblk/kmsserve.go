package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"sealblk/daemon/kmsserver"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

func (a *app) kmsServeCommand() *cli.Command {
	return &cli.Command{
		Name: "serve", Usage: "the embedded KMS over the RPC API of Alibaba Cloud KMS", Action: a.kmsServe,
		Description: "Serves the API of 2016-01-20, so that that cloud's SDKs administer and use the keys of this host.\n" +
			"Clients sign their requests with an access key: sealblk kms access-key create. Without a certificate\n" +
			"it speaks plain HTTP, on a loopback address only. The part [kms.serve] of the configuration has the\n" +
			"same settings: listen, certificate, key, access_keys.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Usage: "`ADDR` to listen on, HOST:PORT"},
			&cli.StringFlag{Name: "certificate", Usage: "PEM `FILE` with the server's certificate, for TLS"},
			&cli.StringFlag{Name: "key", Usage: "PEM `FILE` with the certificate's private key"},
			accessKeysFlag(),
		},
	}
}

func accessKeysFlag() cli.Flag {
	return &cli.StringFlag{Name: "access-keys", Usage: "`FILE` of the access keys (default: access-keys in the state directory)"}
}

func (a *app) kmsAccessKeyCommand() *cli.Command {
	return &cli.Command{
		Name: "access-key", Usage: "who may use kms serve",
		Description: "An access key stands for a principal. What a principal may do with a key is for the key's policy to\n" +
			"say: sealblk key authorize. A running kms serve takes changes over at once.",
		Subcommands: []*cli.Command{
			{
				Name: "create", Usage: "make an access key for a principal", Action: a.accessKeyCreate,
				Description: "Its id and its secret are written to a file, once, in the form in which [kms.aliyun] of the\n" +
					"configuration takes them. The principal operator makes and administers keys, disk-service makes and\n" +
					"opens the data keys of disks.",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "principal", Usage: "`P` that it stands for"},
					&cli.StringFlag{Name: "out", Usage: "`FILE` to write, which must not exist"},
					accessKeysFlag(),
				},
			},
			{Name: "list", Usage: "list access keys", Action: a.accessKeyList, Flags: []cli.Flag{accessKeysFlag()}},
			{Name: "delete", Usage: "end an access key", ArgsUsage: "ID", Action: a.accessKeyDelete, Flags: []cli.Flag{accessKeysFlag()}},
		},
	}
}

// serveConfig is what the configuration and the flags of a command say of kms serve.
func serveConfig(c *cli.Context) (kmsserver.Config, config, error) {
	all, err := loadConfig(c.String("config"))
	s := all.KMS.Serve
	if c.IsSet("listen") {
		s.Listen = c.String("listen")
	}
	for flag, to := range map[string]*string{"certificate": &s.Certificate, "key": &s.Key, "access-keys": &s.AccessKeys} {
		if !c.IsSet(flag) {
			continue
		}
		path, failed := filepath.Abs(c.String(flag)) // a flag names a file, never a credential of systemd
		*to, err = path, errors.Join(err, failed)
	}
	if s.AccessKeys == "" {
		s.AccessKeys = filepath.Join(stateDir(c), "access-keys")
	}
	return s, all, err
}

func (a *app) kmsServe(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	s, config, err := serveConfig(c)
	if err != nil {
		return err
	}
	if s.Listen == "" {
		return usagef("%s: --listen is missing: usage: %s", c.Command.HelpName, usageLine(c))
	}
	tlsConfig, err := s.TLS()
	if err != nil {
		return err
	}
	if err := kmsserver.CheckListener(s.Listen, tlsConfig != nil); err != nil {
		return err
	}
	keys, err := kmsserver.OpenAccessKeys(s.AccessKeys)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: make one: sealblk kms access-key create --principal P --out FILE", err)
	}
	if err != nil {
		return err
	}
	defer keys.Close()
	kms, err := openLocal(stateDir(c), config, local.Operator)
	if err != nil {
		return err
	}
	defer kms.Close()
	notify, err := newNotifier()
	if err != nil {
		return err
	}
	defer notify.close()
	l, err := net.Listen("tcp", s.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.Listen, err)
	}
	scheme := "http"
	if tlsConfig != nil {
		scheme = "https"
	}
	fmt.Fprintf(a.out.err, "sealblk: ready: KMS on %s://%s\n", scheme, l.Addr())
	notify.ready()
	server := kmsserver.New(kms, config.KMS.Local.Region, keys, kmsserver.Options{Log: a.logger(c)})
	return server.Serve(c.Context, l, tlsConfig)
}

func (a *app) accessKeyCreate(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	principal, out := c.String("principal"), c.String("out")
	if principal == "" || out == "" {
		return usagef("%s: --principal and --out are needed: usage: %s", c.Command.HelpName, usageLine(c))
	}
	s, _, err := serveConfig(c)
	if err != nil {
		return err
	}
	saved := false
	k, err := kmsserver.CreateAccessKey(c.Context, s.AccessKeys, principal, func(id string, text *secret.Buffer) error {
		err := saveAccessKey(out, id, text)
		saved = err == nil
		return err
	})
	if err != nil {
		if saved {
			err = errors.Join(err, os.Remove(out))
		}
		return err
	}
	view := struct {
		kmsserver.AccessKey
		Out string `json:"out"`
	}{k, out}
	return a.printer(c).done(view, "made access key %s for %s; its secret is in %s", k.ID, k.Principal, out)
}

// saveAccessKey writes what a client needs, from locked memory, to a new file.
func saveAccessKey(path, id string, text *secret.Buffer) error {
	head, tail := fmt.Sprintf("access_key_id = %q\naccess_key_secret = \"", id), "\"\n"
	all, err := secret.New(len(head) + text.Len() + len(tail))
	if err != nil {
		return err
	}
	defer all.Destroy()
	b := append(all.Bytes()[:0], head...)
	b = append(append(b, text.Bytes()...), tail...)
	err = saveNew(path, func(w io.Writer) error { _, err := w.Write(b); return err })
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("save access key: %w: choose another name", err)
	}
	return err
}

func (a *app) accessKeyList(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	s, _, err := serveConfig(c)
	if err != nil {
		return err
	}
	keys, err := kmsserver.ListAccessKeys(s.AccessKeys)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, k := range keys {
		rows = append(rows, []string{k.ID, k.Principal})
	}
	return a.printer(c).list(keys, []string{"ACCESS KEY", "PRINCIPAL"}, rows)
}

func (a *app) accessKeyDelete(c *cli.Context) error {
	args, err := arguments(c, "ID")
	if err != nil {
		return err
	}
	s, _, err := serveConfig(c)
	if err != nil {
		return err
	}
	if err := kmsserver.DeleteAccessKey(c.Context, s.AccessKeys, args[0]); err != nil {
		return err
	}
	return a.printer(c).done(map[string]string{"access_key_id": args[0], "state": "deleted"}, "deleted access key %s", args[0])
}
