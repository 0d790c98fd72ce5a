package tpm

import (
	"bytes"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

const nonceSize = 16

// parent is the storage root key, loaded.
type parent struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
}

// storageRoot makes the storage root key, which is the same each time until the TPM is
// cleared.
func (d *device) storageRoot() (*parent, error) {
	made, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		InPublic:      tpm2.New2B(tpm2.ECCSRKTemplate),
	}.Execute(d)
	if err != nil {
		return nil, fmt.Errorf("make storage root key: %w", err)
	}
	public, err := made.OutPublic.Contents()
	if err != nil {
		d.flush(made.ObjectHandle)
		return nil, fmt.Errorf("parse storage root key: %w", err)
	}
	return &parent{made.ObjectHandle, made.Name, *public}, nil
}

// flush frees a place in the TPM. The resource manager does, too, when the device is
// closed.
func (d *device) flush(h tpm2.TPMHandle) {
	tpm2.FlushContext{FlushHandle: h}.Execute(d) //nolint:errcheck // nothing better can be done
}

// use authorises a command on the storage root key, with its first parameter encrypted.
func (p *parent) use() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: p.handle, Name: p.name, Auth: p.session(tpm2.AESEncryption(128, tpm2.EncryptIn))}
}

func (p *parent) session(encryption tpm2.AuthOption) tpm2.Session {
	return tpm2.HMAC(tpm2.TPMAlgSHA256, nonceSize, encryption, tpm2.Salted(p.handle, p.public))
}

// selection names registers.
func selection(pcrs []int) tpm2.TPMLPCRSelection {
	var mask [maxPCR/8 + 1]byte
	for _, n := range pcrs {
		mask[n/8] |= 1 << (n % 8)
	}
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: mask[:]}}}
}

// policy is what a session proves by the registers as they are now.
func (d *device) policy(pcrs []int) (tpm2.TPM2BDigest, error) {
	s, end, err := tpm2.PolicySession(d, tpm2.TPMAlgSHA256, nonceSize, tpm2.Trial())
	if err != nil {
		return tpm2.TPM2BDigest{}, fmt.Errorf("start policy: %w", err)
	}
	defer end() //nolint:errcheck // nothing better can be done
	if _, err := (tpm2.PolicyPCR{PolicySession: s.Handle(), Pcrs: selection(pcrs)}).Execute(d); err != nil {
		return tpm2.TPM2BDigest{}, fmt.Errorf("bind policy to PCRs: %w", err)
	}
	got, err := tpm2.PolicyGetDigest{PolicySession: s.Handle()}.Execute(d)
	if err != nil {
		return tpm2.TPM2BDigest{}, fmt.Errorf("read policy: %w", err)
	}
	return got.PolicyDigest, nil
}

// template is a sealed object that no other TPM loads.
func (d *device) template(pcrs []int) (tpm2.TPMTPublic, error) {
	t := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: true, UserWithAuth: len(pcrs) == 0},
	}
	var err error
	if len(pcrs) > 0 {
		t.AuthPolicy, err = d.policy(pcrs)
	}
	return t, err
}

func (d *device) seal(root *secret.Buffer, pcrs []int) (*sealed, error) {
	srk, err := d.storageRoot()
	if err != nil {
		return nil, err
	}
	defer d.flush(srk.handle)
	public, err := d.template(pcrs)
	if err != nil {
		return nil, err
	}
	made, err := tpm2.Create{
		ParentHandle: srk.use(),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: root.Bytes()}),
		}},
		InPublic: tpm2.New2B(public),
	}.Execute(d)
	if err != nil {
		return nil, fmt.Errorf("create object: %w", err)
	}
	return &sealed{Public: made.OutPublic.Bytes(), Private: made.OutPrivate.Buffer, Parent: srk.name.Buffer, PCRs: pcrs}, nil
}

func (d *device) unseal(in sealed) (*secret.Buffer, error) {
	srk, err := d.storageRoot()
	if err != nil {
		return nil, err
	}
	defer d.flush(srk.handle)
	if !bytes.Equal(srk.name.Buffer, in.Parent) {
		return nil, errOtherTPM
	}
	object, err := tpm2.Load{
		ParentHandle: srk.use(),
		InPrivate:    tpm2.TPM2BPrivate{Buffer: in.Private},
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](in.Public),
	}.Execute(d)
	if err != nil {
		return nil, fmt.Errorf("load object: %w", err)
	}
	defer d.flush(object.ObjectHandle)
	session, end, err := d.authorise(srk, in.PCRs)
	if err != nil {
		return nil, err
	}
	defer end() //nolint:errcheck // nothing better can be done
	answer, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: object.ObjectHandle, Name: object.Name, Auth: session}}.Execute(d)
	if err != nil {
		return nil, fmt.Errorf("unseal object: %w", err)
	}
	defer clear(answer.OutData.Buffer)
	return locked(answer.OutData.Buffer)
}

// authorise starts the session that opens an object, and has what comes out encrypted.
func (d *device) authorise(srk *parent, pcrs []int) (tpm2.Session, func() error, error) {
	if len(pcrs) == 0 {
		return srk.session(tpm2.AESEncryption(128, tpm2.EncryptOut)), func() error { return nil }, nil
	}
	s, end, err := tpm2.PolicySession(d, tpm2.TPMAlgSHA256, nonceSize,
		tpm2.AESEncryption(128, tpm2.EncryptOut), tpm2.Salted(srk.handle, srk.public))
	if err != nil {
		return nil, nil, fmt.Errorf("start policy: %w", err)
	}
	if _, err := (tpm2.PolicyPCR{PolicySession: s.Handle(), Pcrs: selection(pcrs)}).Execute(d); err != nil {
		end() //nolint:errcheck // nothing better can be done
		return nil, nil, fmt.Errorf("prove PCRs: %w", err)
	}
	return s, end, nil
}

func locked(b []byte) (*secret.Buffer, error) {
	if len(b) != keySize {
		return nil, fmt.Errorf("unseal %d bytes, not %d: %w", len(b), keySize, keymgr.ErrCorrupt)
	}
	root, err := secret.New(len(b))
	if err == nil {
		copy(root.Bytes(), b)
	}
	return root, err
}
