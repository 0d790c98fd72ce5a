// Package wire is what the KMSs behind a network share: data keys in the replies of HTTP
// services, and the errors for what does not come or is no reply.
//
// # Data keys
//
// A service returns a data key as a member of a JSON object, in base64. [Read] takes the
// whole body into locked memory; [Reply.TakeKey] finds the member, decodes one data key
// of exactly keymgr.DataKeySize bytes (RFC 4648, strictly) into locked memory and
// overwrites its text with letters A. So a JSON parser that gets the rest, which leaves
// copies of what it parses all over the heap, sees no key. Finding copies nothing and
// makes no Go string; no error shows any of the text. What can be wiped is, also on
// failure, and signals wait while the key may be in registers.
//
// The scanner takes every JSON object (RFC 8259) of up to 100 levels and reads no further
// than to the value that was asked for. Names are compared as they are written, so a name
// with an escape in it is not found. Of a name that is there twice the first counts. Of
// escapes in a data key only \/ is understood, which some encoders write for a slash.
//
// Two layers below keep plaintext that cannot be reached here: the record buffer of
// crypto/tls and the buffers of net/http.
//
// # Errors
//
// Errors about a reply are keymgr.ErrCorrupt. What an answer or the lack of one means to a
// user differs from service to service: each has its own hints, and a table of codes with
// a [Verdict] for each. Here is what does not differ.
//
// # Threading
//
// A Reply belongs to one goroutine; functions may be called from any.
package wire
