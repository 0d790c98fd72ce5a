// Package aliyun is Alibaba Cloud KMS as a keymgr.KMS, over the official SDK. The
// embedded KMS of another host is reached in the same way: sealblk kms serve speaks
// this API.
//
// # Contract
//
// A key is named aliyun:REGION/KEY-ID or aliyun:REGION/alias/NAME; it is a symmetric
// key. A wrapped key names the key itself, never an alias, which may point elsewhere
// tomorrow. Its version is the KeyVersionId, its blob the text CiphertextBlob as the KMS
// returned it: any client of the service opens it under the encryption context that
// stands beside it in a disk's header.
//
// Data keys come from GenerateDataKey with NumberOfBytes=64. The encryption context goes
// to the KMS as it is, and into its audit trail, so it must not hold secrets. That the
// halves of a data key differ is checked when its plaintext is first seen.
//
// # Failure
//
// Errors are *keymgr.Error with the codes of the service and what it said.
// Rejected.Throttling and the other codes of limits, and HTTP 429, are ErrThrottled;
// HTTP 5xx and whatever keeps an answer from coming within Config.Timeout are
// ErrUnreachable. The cloud's own service does not tell a blob of another context from
// a damaged one (InvalidParameter): such an error is both ErrContextMismatch and
// ErrCorrupt. The SDK's own retries are off: keymgr.Set makes them.
//
// The SDK knows no contexts. A call whose context ends returns at once; what goes on
// behind it ends with its time-out, and a data key that comes late is wiped.
//
// The SDK keeps one HTTP client for each endpoint in the whole process, made with the
// certificates of the first call. Here each file of certificates has its own, and Open
// checks the file, since the SDK hangs for ever after one that it cannot read.
//
// # Credentials
//
// An access key comes from a file that only its owner can read, in TOML, as sealblk kms
// access-key create writes it:
//
//	access_key_id = "..."
//	access_key_secret = "..."
//	security_token = "..."        # for temporary ones
//
// It is read for every call, so that a new token needs no restart.
//
// # Secrets in memory
//
// Replies with a data key are not left to the SDK's parser, which copies them into
// strings: package wire reads the body into locked memory and decodes the key there. Two
// layers below keep plaintext that cannot be reached: the record buffer of crypto/tls
// and the 4 KiB buffer of net/http hold the last reply of a connection on the Go heap
// until the next one or the collector overwrites it. Only processes that ask a KMS have
// such buffers, and HardenProcess keeps them out of core dumps; a process that serves a
// disk asks its broker. The SDK prints requests when the environment has DEBUG=tea: Open
// refuses that.
//
// Wrap, which takes a data key from another KMS here, sends it as the parameter Plaintext
// of Encrypt, in the body of the request. The SDK makes strings of it, which stay on the
// Go heap of the process that moves the key until the collector has reused their memory;
// in the embedded KMS's server too. Data keys that this KMS made itself never go that way.
//
// # Threading
//
// A KMS may be used from any goroutine.
//
// Sources: the SDK's code (kms-20160120/v3 v3.2.3, darabonba-openapi/v2 v2.0.9, tea
// v1.2.2), the service's API reference (GenerateDataKey, Decrypt, ReEncrypt,
// DescribeKey, common error codes). The cloud's own service is out of reach of the tests;
// that it takes Plaintext from a form, as its gateway takes any parameter of a POST, was
// read and not tried.
package aliyun
