package local

import (
	"fmt"

	"sealblk/keymgr"
)

var states = []keymgr.State{keymgr.Enabled, keymgr.Disabled, keymgr.PendingDeletion, keymgr.PendingImport}

// operation is a class of calls that the states treat alike.
type operation int

const (
	opUse operation = iota // GenerateDataKey(WithoutPlaintext), Decrypt, ReEncrypt
	opDescribe
	opUpdate // UpdateKeyDescription, SetRotation, SetDeletionProtection
	opEnable
	opDisable
	opSchedule
	opCancel
	opRotate
	opPolicy // Authorize, Revoke
	opAlias
	opImport // ImportKeyMaterial
	opForget // DeleteKeyMaterial
)

// refusals is the state table: the code with which a state refuses an operation. No
// entry: it is allowed.
//
//	       Enable, Disable        ScheduleKeyDeletion
//	     .--------------------.   .----------------.
//	     v                    |   |                v
//	[Enabled] <--------> [Disabled]          [PendingDeletion]
//	     ^                                         |
//	     '------------ CancelKeyDeletion ----------'   date passed: destroyed
//
//	A key of external origin begins as PendingImport. ImportKeyMaterial enables it;
//	DeleteKeyMaterial and the material's expiry take it back there, and so does
//	CancelKeyDeletion when it has no material.
var refusals = map[operation]map[keymgr.State]string{
	opUse: {
		keymgr.Disabled:        CodeDisabled,
		keymgr.PendingDeletion: CodePendingDeletion,
		keymgr.PendingImport:   CodePendingImport,
	},
	opUpdate:   {keymgr.PendingDeletion: CodePendingDeletion},
	opEnable:   {keymgr.PendingDeletion: CodeState, keymgr.PendingImport: CodeState},
	opDisable:  {keymgr.PendingDeletion: CodeState, keymgr.PendingImport: CodeState},
	opSchedule: {keymgr.PendingDeletion: CodeState},
	opCancel:   {keymgr.Enabled: CodeState, keymgr.Disabled: CodeState, keymgr.PendingImport: CodeState},
	opRotate: {
		keymgr.Disabled:        CodeDisabled,
		keymgr.PendingDeletion: CodePendingDeletion,
		keymgr.PendingImport:   CodePendingImport,
	},
	opImport: {keymgr.PendingDeletion: CodePendingDeletion},
	opForget: {keymgr.PendingDeletion: CodePendingDeletion, keymgr.PendingImport: CodePendingImport},
}

// refusedByServiceKey are the changes that a service key never takes.
var refusedByServiceKey = map[operation]bool{opDisable: true, opSchedule: true, opPolicy: true, opAlias: true}

// refusal is the error behind a code and the command that mends it (%s: the key).
var refusal = map[string]struct {
	err  error
	hint string
}{
	CodeDisabled:        {keymgr.ErrDisabled, "sealblk key enable %s"},
	CodePendingDeletion: {keymgr.ErrPendingDeletion, "sealblk key cancel-deletion %s"},
	CodePendingImport:   {keymgr.ErrPendingImport, "sealblk key import %s --material FILE"},
	CodeState:           {keymgr.ErrState, "see: sealblk key show %s"},
}

// allow checks an operation against the key's nature and state.
func (r *record) allow(op operation) error {
	if r.Service && refusedByServiceKey[op] {
		return &keymgr.Error{
			Code: CodeServiceKey, Key: r.ID, Hint: "make a key of your own: sealblk key create",
			Err: keymgr.ErrServiceKey,
		}
	}
	code, refused := refusals[op][r.State]
	if !refused {
		return nil
	}
	return r.refuse(code)
}

func (r *record) refuse(code string) error {
	why := refusal[code]
	return &keymgr.Error{Code: code, Key: r.ID, Hint: fmt.Sprintf(why.hint, r.ID), Err: why.err}
}
