package main

import (
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"sealblk/keymgr"
	"sealblk/keymgr/local"
)

func (a *app) auditCommand() *cli.Command {
	return &cli.Command{
		Name: "audit", Usage: "what was asked of the embedded KMS",
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list every call, oldest first", Action: a.onKeys(a.auditList),
				Description: "If the log is damaged, what is before the damage is listed and the command fails.",
			},
			{
				Name: "verify", Usage: "check that no record was altered, added or taken away", Action: a.onKeys(a.auditVerify),
				Description: "The first bad record is named. Whoever has the KMS's root key could forge a log.",
			},
		},
	}
}

func (a *app) auditList(c *cli.Context, kms *local.KMS, _ []string) error {
	entries := []local.Entry{}
	err := kms.AuditLog(c.Context, func(e local.Entry) { entries = append(entries, e) })
	var rows [][]string
	for _, e := range entries {
		rows = append(rows, []string{
			strconv.FormatUint(e.Number, 10), e.Time.Format(time.RFC3339), e.Principal, e.Operation,
			orDash(e.Key), versionText(e.Version), orDash(e.Context[keymgr.ContextDisk]), e.Result, auditDetail(e),
		})
	}
	head := []string{"NUMBER", "TIME", "PRINCIPAL", "OPERATION", "KEY", "VERSION", "DISK", "RESULT", "DETAIL"}
	if printed := a.printer(c).list(entries, head, rows); printed != nil {
		return printed
	}
	return err
}

func auditDetail(e local.Entry) string {
	if e.ToKey != "" {
		return "to " + e.ToKey + " version " + versionText(e.ToVersion)
	}
	return orDash(e.Detail)
}

func versionText(v uint32) string {
	if v == 0 {
		return "-"
	}
	return strconv.FormatUint(uint64(v), 10)
}

func (a *app) auditVerify(c *cli.Context, kms *local.KMS, _ []string) error {
	n, err := kms.VerifyAudit(c.Context)
	if err != nil {
		return err
	}
	return a.printer(c).done(map[string]uint64{"records": n}, "%d records, none altered, added or missing", n)
}
