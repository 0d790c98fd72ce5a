package local

import (
	"fmt"
	"slices"
	"strings"

	"sealblk/keymgr"
)

const (
	// DiskService is the principal that makes and opens data keys.
	DiskService = "disk-service"
	// Operator is the principal of the command line: it makes and administers keys.
	Operator = "operator"
)

// Permission is what a key's policy grants a principal.
type Permission string

const (
	Generate  Permission = "generate"
	Decrypt   Permission = "decrypt"
	ReEncrypt Permission = "reencrypt"
	Admin     Permission = "admin"
)

var permissions = []Permission{Generate, Decrypt, ReEncrypt, Admin}

// ParsePermissions reads a list as the command line takes it: "generate,decrypt".
func ParsePermissions(s string) ([]Permission, error) {
	var list []Permission
	for word := range strings.SplitSeq(s, ",") {
		list = append(list, Permission(strings.TrimSpace(word)))
	}
	return list, checkPermissions(list)
}

func checkPermissions(list []Permission) error {
	for _, p := range list {
		if !slices.Contains(permissions, p) {
			return invalid("", "permissions are generate, decrypt, reencrypt and admin", "permission %q", p)
		}
	}
	if len(list) == 0 {
		return invalid("", "name at least one of generate, decrypt, reencrypt and admin", "no permission")
	}
	return nil
}

// userPolicy is the policy of a new CMK; servicePolicy that of a service key, for
// good.
func userPolicy() map[string][]Permission { return map[string][]Permission{Operator: {Admin}} }

func servicePolicy() map[string][]Permission {
	return map[string][]Permission{Operator: {Admin}, DiskService: {Generate, Decrypt, ReEncrypt}}
}

// permit checks a principal's permission on a key.
func (r *record) permit(principal string, p Permission) error {
	if slices.Contains(r.Policy[principal], p) {
		return nil
	}
	return &keymgr.Error{
		Code: CodeAccessDenied, Key: r.ID, Hint: r.remedy(principal, p),
		Err: fmt.Errorf("%s by %s: %w", p, principal, keymgr.ErrAccessDenied),
	}
}

// remedy is the command that grants a permission. Who generates must decrypt too to
// get anything back, so these go together.
func (r *record) remedy(principal string, p Permission) string {
	if r.Service {
		return "a service key serves " + DiskService + " only; make a key of your own: sealblk key create"
	}
	allow := string(p)
	if p == Generate || p == Decrypt {
		allow = "generate,decrypt"
	}
	return fmt.Sprintf("sealblk key authorize %s --principal %s --allow %s", r.ID, principal, allow)
}

func (r *record) grant(principal string, list []Permission) {
	all := append(slices.Clone(r.Policy[principal]), list...)
	slices.SortFunc(all, func(a, b Permission) int { return slices.Index(permissions, a) - slices.Index(permissions, b) })
	r.Policy[principal] = slices.Compact(all)
}

// revoke takes everything from a principal, but never the key's last administrator.
func (r *record) revoke(principal string) error {
	delete(r.Policy, principal)
	for _, granted := range r.Policy {
		if slices.Contains(granted, Admin) {
			return nil
		}
	}
	return invalid(r.ID, "authorize another principal with --allow admin first", "revoke the last administrator %q", principal)
}
