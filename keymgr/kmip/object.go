package kmip

import (
	"context"
	"slices"
	"time"

	"github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/payloads"

	"sealblk/keymgr"
	"sealblk/keymgr/wire"
)

// object is a key as the server describes it.
type object struct {
	uid         string
	names       []string
	kind        kmip.ObjectType
	state       kmip.State
	algorithm   kmip.CryptographicAlgorithm
	length      int32 // bits
	created     time.Time
	replacement string // the identifier of the key that took its place, "" for none
}

// wanted are the attributes that an object is made of.
var wanted = []kmip.AttributeName{
	kmip.AttributeNameName, kmip.AttributeNameObjectType, kmip.AttributeNameState, kmip.AttributeNameCryptographicAlgorithm,
	kmip.AttributeNameCryptographicLength, kmip.AttributeNameInitialDate, kmip.AttributeNameLink,
}

// lookUp describes the key of an identifier.
func (s *session) lookUp(ctx context.Context, uid string) (object, error) {
	out, err := ask[*payloads.GetAttributesResponsePayload](ctx, s, &payloads.GetAttributesRequestPayload{
		UniqueIdentifier: uid, AttributeName: wanted,
	})
	if err != nil {
		return object{}, err
	}
	o := object{uid: out.UniqueIdentifier}
	for _, a := range out.Attribute {
		o.take(a.AttributeValue)
	}
	return o, nil
}

func (o *object) take(value any) {
	switch v := value.(type) {
	case kmip.Name:
		o.names = append(o.names, v.NameValue)
	case kmip.ObjectType:
		o.kind = v
	case kmip.State:
		o.state = v
	case kmip.CryptographicAlgorithm:
		o.algorithm = v
	case int32:
		o.length = v
	case time.Time:
		o.created = v
	case kmip.Link:
		if v.LinkType == kmip.LinkTypeReplacementObjectLink {
			o.replacement = v.LinkedObjectIdentifier
		}
	}
}

// find describes the key that a user means: an identifier, else a name that one active
// key has.
func (s *session) find(ctx context.Context, key string) (object, error) {
	o, err := s.lookUp(ctx, key)
	if !refusedWith(err, kmip.ResultReasonItemNotFound, kmip.ResultReasonInvalidField) {
		return o, err
	}
	out, located := ask[*payloads.LocateResponsePayload](ctx, s, &payloads.LocateRequestPayload{Attribute: []kmip.Attribute{
		{AttributeName: kmip.AttributeNameName, AttributeValue: kmip.Name{NameValue: key, NameType: kmip.NameTypeUninterpretedTextString}},
		{AttributeName: kmip.AttributeNameObjectType, AttributeValue: kmip.ObjectTypeSymmetricKey},
	}})
	if refusedWith(located, kmip.ResultReasonPermissionDenied, kmip.ResultReasonOperationNotSupported) {
		return object{}, err // it may not be a name at all
	}
	if located != nil {
		return object{}, located
	}
	return s.only(ctx, key, out.UniqueIdentifier, err)
}

// only picks the one that is active among keys of the same name.
func (s *session) only(ctx context.Context, key string, uids []string, none error) (object, error) {
	var found []object
	for _, uid := range uids[:min(len(uids), maxChain)] {
		o, err := s.lookUp(ctx, uid)
		if err != nil {
			return object{}, err
		}
		found = append(found, o)
	}
	if len(found) == 0 {
		return object{}, none
	}
	active := slices.DeleteFunc(slices.Clone(found), func(o object) bool { return o.state != kmip.StateActive })
	switch len(active) {
	case 0:
		return found[len(found)-1], nil
	case 1:
		return active[0], nil
	}
	return object{}, wire.Invalid(uriOf(key), "use the identifier of the key that is meant, or give it a name of its own",
		"%d active keys have the name %q", len(active), key)
}

// maxChain bounds how often a key can have been replaced.
const maxChain = 64

// newest follows the links that a re-key leaves, as far as keys are active and this host
// is told of them: chain[0] is o, the last one is the key to wrap under. What became of a
// replacement takes nothing from what it was to replace.
func (s *session) newest(ctx context.Context, o object) (chain []object, err error) {
	for chain = []object{o}; o.replacement != "" && len(chain) < maxChain; chain = append(chain, o) {
		o, err = s.lookUp(ctx, o.replacement)
		if refusedWith(err, kmip.ResultReasonItemNotFound, kmip.ResultReasonPermissionDenied) {
			break
		}
		if err != nil {
			return nil, err
		}
		if o.state != kmip.StateActive {
			break
		}
	}
	return chain, nil
}

// usable refuses a key that may not wrap or unwrap.
func (o object) usable() error {
	if o.state != kmip.StateActive {
		return notActive(uriOf(o.uid), o.state)
	}
	if o.algorithm != kmip.CryptographicAlgorithmAES || o.length != 256 {
		return wire.Invalid(uriOf(o.uid), "choose an AES key of 256 bits", "the key is not one for AES-256")
	}
	return nil
}

func (o object) info(chain []object) keymgr.KeyInfo {
	return keymgr.KeyInfo{
		URI: uriOf(o.uid), KeyID: o.uid, Aliases: o.names, State: stateOf(o.state), Origin: "KMIP",
		PrimaryVersion: chain[len(chain)-1].uid, Versions: len(chain), Created: o.created,
	}
}

func stateOf(s kmip.State) keymgr.State {
	if s == kmip.StateActive {
		return keymgr.Enabled
	}
	return keymgr.Disabled
}
