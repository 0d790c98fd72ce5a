package tpm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// DefaultDevice is the TPM as the kernel's resource manager offers it.
const DefaultDevice = "/dev/tpmrm0"

// Code of the errors of a TPM that refuses.
const Code = "RootKeyLocked"

const (
	maxPCR  = 23
	keySize = 32
)

// Source keeps root keys in a TPM.
type Source struct {
	// Device is the TPM's device, or the socket of a software TPM; "" is DefaultDevice.
	Device string
	// PCRs bind new root keys to platform configuration registers, 0 to 23, of the
	// SHA-256 bank.
	PCRs []int
}

// sealed is a root key as the KMS's folder holds it.
type sealed struct {
	Public  []byte `json:"public"`  // TPMT_PUBLIC of the object
	Private []byte `json:"private"` // TPM2B_PRIVATE, without its size
	Parent  []byte `json:"parent"`  // name of the storage root key
	PCRs    []int  `json:"pcrs,omitempty"`
}

// Wrap seals a root key.
func (s Source) Wrap(root *secret.Buffer) (json.RawMessage, error) {
	pcrs, err := s.pcrs()
	if err != nil {
		return nil, err
	}
	t, err := s.open()
	if err != nil {
		return nil, err
	}
	defer t.close()
	out, err := t.seal(root, pcrs)
	if err != nil {
		return nil, s.explain("seal root key", err)
	}
	return json.Marshal(out)
}

// Unwrap unseals a root key, which the caller destroys.
func (s Source) Unwrap(wrapped json.RawMessage) (*secret.Buffer, error) {
	var in sealed
	d := json.NewDecoder(bytes.NewReader(wrapped))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, fmt.Errorf("parse sealed root key: %w", keymgr.ErrCorrupt)
	}
	if _, err := (Source{PCRs: in.PCRs}).pcrs(); err != nil {
		return nil, fmt.Errorf("parse sealed root key: %w", keymgr.ErrCorrupt)
	}
	t, err := s.open()
	if err != nil {
		return nil, err
	}
	defer t.close()
	root, err := t.unseal(in)
	if err != nil {
		return nil, s.explain("unseal root key", err)
	}
	return root, nil
}

// pcrs are the registers, sorted.
func (s Source) pcrs() ([]int, error) {
	pcrs := slices.Clone(s.PCRs)
	slices.Sort(pcrs)
	if len(slices.Compact(slices.Clone(pcrs))) != len(pcrs) || len(pcrs) > 0 && (pcrs[0] < 0 || pcrs[len(pcrs)-1] > maxPCR) {
		return nil, &keymgr.Error{
			Code: keymgr.CodeInvalid, Hint: fmt.Sprintf("name each register once, 0 to %d", maxPCR),
			Err: fmt.Errorf("bind root key to PCRs %v: %w", s.PCRs, keymgr.ErrInvalid),
		}
	}
	return pcrs, nil
}

func (s Source) device() string {
	if s.Device == "" {
		return DefaultDevice
	}
	return s.Device
}

// errOtherTPM: the storage root key is not the one under which the root key was sealed.
var errOtherTPM = errors.New("sealed by another TPM, or the TPM was cleared since")

// reasons are the answers of a TPM with which a user can do something.
var reasons = []struct {
	is   error
	text string
	hint string
}{
	{errOtherTPM, "", restoreHint},
	{tpm2.TPMRCIntegrity, errOtherTPM.Error() + ", or the sealed key was altered", restoreHint},
	{tpm2.TPMRCPolicyFail, bootText, bootHint},
	{tpm2.TPMRCPCRChanged, bootText, bootHint},
	{tpm2.TPMRCLockout, "the TPM is locked after wrong passwords", "wait until it unlocks, or: tpm2_dictionarylockout --clear-lockout"},
	{tpm2.TPMRCBadAuth, "the owner hierarchy has a password", ownerHint},
	{tpm2.TPMRCAuthFail, "the owner hierarchy has a password", ownerHint},
}

const (
	restoreHint = "restore the KMS from a backup: sealblk kms restore FILE"
	bootText    = "the host was started in another way than when the key was sealed: its PCRs differ"
	bootHint    = "start the host as before, or restore the KMS from a backup: sealblk kms restore FILE"
	ownerHint   = "a root key needs an owner hierarchy without a password: tpm2_changeauth -c owner -p OLD"
)

// explain says what an answer of the TPM means.
func (s Source) explain(what string, err error) error {
	e := &keymgr.Error{Code: Code}
	for _, r := range reasons {
		if !errors.Is(err, r.is) {
			continue
		}
		text := r.text
		if text == "" {
			text = r.is.Error()
		}
		e.Hint, e.Err = r.hint, fmt.Errorf("%s (%s): %s: %w", what, s.device(), text, keymgr.ErrAccessDenied)
		return e
	}
	return fmt.Errorf("%s (%s): %w", what, s.device(), err)
}
