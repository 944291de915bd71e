//! Denies of all credentials but those that are meant for a destination.
//!
//! A host has many owners: a client that may push to a forge may push to any repository there, with any
//! token. A deny with `unless.credentials` refuses every request with a credential that was not issued
//! for the work:
//!
//! ```toml
//! [inspect]
//! ca-cert = "inspect-ca.pem"
//! ca-key = "inspect-ca.key"
//! credential-key = "credentials.key"
//!
//! [[rule]]
//! id = "forge"
//! verdict = "allow"
//! to.hosts = ["forge.example.com"]
//! grant.inspect = true
//!
//! [[rule]]
//! id = "own-credentials"
//! verdict = "deny"
//! to.hosts = ["forge.example.com"]
//! unless.credentials = ["hmac-sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]
//! ```
//!
//! A request with another credential is refused (`credential_denied`) before any byte of it leaves. A
//! request without a credential may pass: the forge answers it as an anonymous request. Where a request
//! presents several credentials, each is compared. A tunnel that is not inspected is refused: the gate
//! cannot see its credentials.
//!
//! # Writing one
//!
//! ```sh
//! (umask 077; openssl rand -base64 48 > credentials.key)
//! tidegate credential hash --config tidegate.toml < token.txt
//! ```
//!
//! `credential hash` reads one credential from standard input, never from its arguments, and prints
//! what the rule says (`--json`: an object with `credential`). The hash is HMAC-SHA-256 under
//! `credential-key`: without the key a reader cannot test guesses against the hash, so reviewers
//! may see the policy. A new key means new hashes; a configuration whose rules name credentials without a key
//! does not load. Neither a credential nor its hash is ever written to a record, a log or a refusal.
//!
//! # What counts as a credential
//!
//! One secret has one hash, however it is carried:
//!
//! - `Authorization`: of `Bearer` and `token` the token; of `Basic` the password, or the user where
//!   the password is empty (or `x-oauth-basic`); what has no scheme, or one not named here, as a
//!   whole. So the Basic of git and the Bearer of an API are the same for one token. A user of 20 or
//!   more letters, digits, `-`, `_` and `.` counts as well, since a server may take it for a token. A
//!   second `Authorization` field is refused with 400.
//! - Signed requests: the id of the access key (AWS, also in `X-Amz-Credential` and
//!   `AWSAccessKeyId`; Google Cloud Storage; the account of Azure's `SharedKey`).
//! - Fields: `x-api-key`, `api-key`, `x-goog-api-key`, `X-NuGet-ApiKey`, `X-JFrog-Art-Api`,
//!   `DD-API-KEY`, `PRIVATE-TOKEN`, `JOB-TOKEN`, `Deploy-Token`, and every field whose name ends in
//!   `-token`, `-api-key`, `-apikey`, `-access-key`, `-authorization` or `-secret`, but for tokens
//!   against forged forms. What follows `Bearer` there is the same as alone.
//! - Every value in `Cookie`: at a destination for which a rule names credentials, cookies have to be
//!   named too.
//! - Parameters of the query: `access_token`, `private_token`, `api_key`, `key`, `token`, `sig` and
//!   others like them, in any spelling.
//! - Subprotocols of WebSocket that carry a key.
//!
//! What stands in a body (a sign-in, an OAuth grant) is not compared, nor is a secret in the path:
//! name `paths` and `operations` so that requests like that do not pass.
