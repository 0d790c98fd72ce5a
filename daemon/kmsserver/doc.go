// Package kmsserver serves the embedded KMS over the RPC API of Alibaba Cloud KMS,
// version 2016-01-20, so that this service's SDKs administer and use it.
//
// # Contract
//
// [New] makes a server of a [local.KMS] and a file of access keys; [Server.Serve]
// answers requests on a listener until its context ends. A request is one action,
// with its parameters in the query string, as the SDKs send them, or in a form:
//
//	keys      CreateKey DescribeKey ListKeys EnableKey DisableKey ScheduleKeyDeletion
//	          CancelKeyDeletion UpdateKeyDescription SetDeletionProtection
//	versions  CreateKeyVersion ListKeyVersions DescribeKeyVersion UpdateRotationPolicy
//	aliases   CreateAlias UpdateAlias DeleteAlias ListAliases ListAliasesByKeyId
//	material  GetParametersForImport ImportKeyMaterial DeleteKeyMaterial
//	data      Encrypt Decrypt GenerateDataKey GenerateDataKeyWithoutPlaintext ReEncrypt
//
// Replies are JSON with a RequestId; so are errors, with the service's code and HTTP
// status, a message that says which key, in which state, and how to go on. A parameter
// that this server does not know is refused, not ignored: some of them restrict what
// may be done with a key.
//
// It differs from the service on purpose in this: ReEncrypt keeps the encryption
// context, since a blob must not move to another disk; a version's id is its number;
// an ARN names the region and the account "sealblk", and an ARN of any account is
// taken for a key of this KMS; only symmetric keys (Aliyun_AES_256) are made; a
// parameter of Encrypt that is not Base64 is refused.
//
// # Authentication
//
// Every request is signed with an access key, in one of the forms that the official Go
// SDK v3.2.3 can be told to use: ACS3-HMAC-SHA256 (its default) and ACS4-HMAC-SHA256,
// which sign headers, and HMAC-SHA1 1.0, which signs parameters. The signature covers
// the action, every parameter, a time stamp and a nonce. A time stamp may be [Window]
// old or ahead; a nonce is taken once in that time. After a start the server refuses
// requests signed before it, which it might have answered in its former life; they are
// to be sent again.
//
// An access key stands for a principal of the KMS: the policies of the keys decide
// what it may do, and the audit log has its name. The file of access keys (see
// [OpenAccessKeys]) is looked at with every request, so that a key that was taken out
// ends at once. Signatures are compared in constant time, an unknown access key is
// checked like a known one.
//
// # What is secret
//
// Plaintext data keys leave by the reply of Decrypt and GenerateDataKey. What is secret
// in such a reply is put together in locked memory and written from there to the
// connection, which is closed behind it: it never is in the buffers of net/http. Over TLS,
// crypto/tls encrypts it in a buffer of its own, in place if the buffer is large enough;
// the record in front of it sees to that, as far as sync.Pool returns what it was given.
// Without TLS it is on the wire in plaintext, which is why that is for the loopback
// interface only ([CheckListener]).
//
// On the Go heap are, out of reach of a wipe: the parameter Plaintext of a request to
// Encrypt, with the query string or form that it is part of, until the collector has
// reused the memory (that is how a data key of another KMS comes here, when a disk
// changes its KMS); the RSA keys of GetParametersForImport until their token is used or
// expires; what crypto/hmac keeps of an access key's secret, and crypto/rsa of imported
// material, for the moment of a call. The process is not dumpable.
//
// Nothing here logs a query string, a header or a body: the log has the action, the
// principal, the result and the time that it took.
//
// # Limits
//
// A request's header and query have at most 64 KiB, its body too; reading a request
// takes at most 10 s, a connection may be idle for 60 s. At most [MaxConnections] are
// open, more wait; at most MaxRequests are answered at a time, more are refused with
// Rejected.Throttling. A request that is not all there yet is not among them.
//
// # Threading
//
// Methods of Server may be called from any goroutine. Serve returns when all requests
// that it had accepted are answered, or after a grace time of 5 s.
//
// Sources: the SDK's own code (github.com/alibabacloud-go/kms-20160120/v3 v3.2.3,
// darabonba-openapi/v2 v2.0.9, alibabacloud-gateway-pop v0.0.6), the service's API
// reference with its list of error codes, and its table of key states.
package kmsserver
