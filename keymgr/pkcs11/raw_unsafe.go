//go:build pkcs11

package pkcs11

/*
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>

typedef unsigned long ck_ulong;

// The beginning of CK_FUNCTION_LIST: the version, then pointers in the order of the
// specification.
struct functions {
	struct { unsigned char major, minor; } version;
	void *at[68];
};

enum { at_login = 18, at_decrypt = 34, at_generate_random = 64 };

typedef ck_ulong (*get_function_list)(struct functions **);
typedef ck_ulong (*login)(ck_ulong, ck_ulong, unsigned char *, ck_ulong);
typedef ck_ulong (*decrypt)(ck_ulong, unsigned char *, ck_ulong, unsigned char *, ck_ulong *);
typedef ck_ulong (*generate_random)(ck_ulong, unsigned char *, ck_ulong);

static struct functions *functions_of(void *library) {
	struct functions *f = NULL;
	get_function_list get = (get_function_list)dlsym(library, "C_GetFunctionList");
	if (get == NULL || get(&f) != 0) {
		return NULL;
	}
	return f;
}

static ck_ulong call_login(struct functions *f, ck_ulong session, ck_ulong user, void *pin, ck_ulong n) {
	return ((login)f->at[at_login])(session, user, pin, n);
}

static ck_ulong call_decrypt(struct functions *f, ck_ulong session, void *in, ck_ulong n, void *out, ck_ulong *m) {
	return ((decrypt)f->at[at_decrypt])(session, in, n, out, m);
}

static ck_ulong call_generate_random(struct functions *f, ck_ulong session, void *out, ck_ulong n) {
	return ((generate_random)f->at[at_generate_random])(session, out, n);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/miekg/pkcs11"

	"sealblk/keymgr/secret"
)

// raw makes the calls that a secret goes through: the library's own wrappers would put
// it on the Go heap and the C heap, and leave it there.
type raw struct {
	library   unsafe.Pointer
	functions *C.struct_functions
}

// openRaw loads a module that is loaded already: it is the same one.
func openRaw(path string) (*raw, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	library := C.dlopen(name, C.RTLD_NOW)
	if library == nil {
		return nil, fmt.Errorf("load %s: %s", path, C.GoString(C.dlerror()))
	}
	functions := C.functions_of(library)
	if functions == nil {
		C.dlclose(library)
		return nil, errors.New("load " + path + ": it is not a PKCS#11 module")
	}
	return &raw{library, functions}, nil
}

func (r *raw) close() { C.dlclose(r.library) }

// first is the address of a buffer, nil for none.
func first(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

func failed(code C.ck_ulong) error {
	if code == pkcs11.CKR_OK {
		return nil
	}
	return pkcs11.Error(code)
}

func (r *raw) login(s pkcs11.SessionHandle, pin *secret.Buffer) error {
	p := pin.Bytes()
	return failed(C.call_login(r.functions, C.ck_ulong(s), pkcs11.CKU_USER, first(p), C.ck_ulong(len(p))))
}

func (r *raw) generateRandom(s pkcs11.SessionHandle, out *secret.Buffer) error {
	p := out.Bytes()
	return failed(C.call_generate_random(r.functions, C.ck_ulong(s), first(p), C.ck_ulong(len(p))))
}

// decrypt ends what DecryptInit began; n is the length of the plaintext in out.
func (r *raw) decrypt(s pkcs11.SessionHandle, in []byte, out *secret.Buffer) (n int, err error) {
	p := out.Bytes()
	length := C.ck_ulong(len(p))
	err = failed(C.call_decrypt(r.functions, C.ck_ulong(s), first(in), C.ck_ulong(len(in)), first(p), &length))
	runtime.KeepAlive(in)
	return int(length), err
}
