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
	opNewAlias
	opMoveAlias // to this key
	opLoseAlias
	opParameters // PrepareImport
	opImport     // ImportKeyMaterial
	opForget     // DeleteKeyMaterial
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
	opNewAlias:  {keymgr.PendingDeletion: CodeState},
	opMoveAlias: {keymgr.PendingDeletion: CodePendingDeletion},
	opImport:    {keymgr.PendingDeletion: CodeState},
}

// refusedByServiceKey are the changes that a service key never takes.
var refusedByServiceKey = map[operation]bool{
	opDisable: true, opSchedule: true, opPolicy: true, opNewAlias: true, opMoveAlias: true, opLoseAlias: true,
}

// refusal is the error behind a code.
var refusal = map[string]error{
	CodeDisabled:        keymgr.ErrDisabled,
	CodePendingDeletion: keymgr.ErrPendingDeletion,
	CodePendingImport:   keymgr.ErrPendingImport,
	CodeState:           keymgr.ErrState,
}

// wayOut is the command that takes a key (%s) out of a state.
var wayOut = map[keymgr.State]string{
	keymgr.Enabled:         "nothing is to be cancelled, see: sealblk key show %s",
	keymgr.Disabled:        "sealblk key enable %s",
	keymgr.PendingDeletion: "sealblk key cancel-deletion %s",
	keymgr.PendingImport:   "sealblk key import %s --material FILE",
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

// refuse names the key, its state and the way out.
func (r *record) refuse(code string) error {
	return &keymgr.Error{
		Code: code, Key: r.ID, Hint: fmt.Sprintf(wayOut[r.State], r.ID),
		Err: fmt.Errorf("state %s: %w", r.State, refusal[code]),
	}
}
