// Package aws is AWS KMS as a keymgr.KMS, over the official SDK.
//
// # Contract
//
// A key is named aws:REGION/KEY-ID or aws:REGION/alias/NAME; a key of another account
// by its ARN, aws:REGION/arn:aws:kms:... . It is a symmetric key for encryption. A
// wrapped key names the key itself, never an alias, which may point elsewhere
// tomorrow. Its blob is what AWS returned, untouched: `aws kms decrypt` opens it under
// the encryption context that stands beside it in a disk's header.
//
// Data keys come from GenerateDataKey with 64 bytes. The encryption context goes to AWS
// as it is: AWS binds it to the blob, writes it to CloudTrail, and can condition a
// policy on it, so it must not hold secrets. That the halves of a data key differ is
// checked when its plaintext is first seen, so with GenerateDataKeyWithoutPlaintext at
// the first attach.
//
// # Versions
//
// AWS rotates the material behind a key and keeps the old one; every blob knows its
// material. The version of a wrapped key is the id of that material where AWS says it,
// else "". ReEncrypt to the same key wraps under the newest material, inside AWS.
//
// # Failure
//
// Errors are *keymgr.Error with the codes of AWS. InvalidCiphertextException is what AWS
// says to a blob of another encryption context and to a damaged blob alike, and it does
// not tell which: such an error is both ErrContextMismatch and ErrCorrupt. A state that
// AWS describes in words only (KMSInvalidStateException) is asked for by DescribeKey, and
// is ErrState if that is not allowed. ThrottlingException, LimitExceededException and
// HTTP 429 are ErrThrottled; HTTP 5xx and whatever keeps an answer from coming within
// Config.Timeout are ErrUnreachable. The SDK's own retries are off: keymgr.Set makes
// them. No redirect is followed.
//
// # Credentials
//
// Access keys come from a file that only its owner can read, or from the SDK's own
// chain. The file is read for every call, so that a new session token needs no restart.
//
// # Secrets in memory
//
// Package wire reads a reply with a data key into locked memory and decodes the key there;
// what the SDK parses has letters in its place. Two layers below keep plaintext that cannot be
// reached: the record buffer of crypto/tls and the 4 KiB buffer of net/http hold the
// last reply of a connection on the Go heap, until the next reply or the collector
// overwrites it. Only processes that ask a KMS have such buffers, and HardenProcess keeps
// them out of core dumps; a process that serves a disk asks its broker.
//
// Wrap sends a data key that was made elsewhere. The body of the request is overwritten
// when the call is over; what the SDK's encoder outgrew while it wrote it, and the copy
// in net/http's own buffer, are not reached.
//
// # Threading
//
// A KMS may be used from any goroutine.
//
// Sources: AWS KMS API reference (GenerateDataKey, Decrypt, ReEncrypt, DescribeKey, common
// errors), AWS KMS developer guide (encryption context, key states, rotation).
package aws
