//! The credentials in a request, as keyed hashes, for rules with `credentials`.
//!
//! One secret has one hash, in every form: a token has the same hash as `Bearer`, as the password
//! of Basic, in a field of its own and in the query. Every value that a server might accept as a
//! credential counts: an excess value only causes a refusal, a missed one would let a credential
//! out.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode_str;

use crate::config::CredentialKey;
use crate::http::http1::{RequestHead, carries_credential};
use crate::name::Path;
use crate::proxy::refusal::{Code, Refusal};

/// Different credentials of one request, at most.
const MAX_CREDENTIALS: usize = 64;

/// Query parameters with a credential, case-insensitive.
const PARAMETERS: [&str; 22] = [
    "access_token",
    "api-key",
    "api_key",
    "apikey",
    "auth",
    "auth_token",
    "awsaccesskeyid",
    "client_secret",
    "deploy_token",
    "googleaccessid",
    "job_token",
    "jwt",
    "key",
    "password",
    "private_token",
    "secret",
    "sig",
    "token",
    "x-amz-credential",
    "x-api-key",
    "x-goog-api-key",
    "x-goog-credential",
];

/// Prefixes of WebSocket subprotocols that contain a credential.
const SUBPROTOCOLS: [&str; 2] = [
    "base64url.bearer.authorization.k8s.io.",
    "openai-insecure-api-key.",
];

/// The length from which a user name of Basic may be a token itself.
const TOKEN_LENGTH: usize = 20;

/// Some servers accept Base64 without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The hashes of every credential in a request. `Err` if `Authorization` occurs twice, or if there
/// are too many credentials.
pub(in crate::proxy) fn of(
    head: &RequestHead,
    path: &Path,
    key: &CredentialKey,
) -> Result<Vec<Box<str>>, Refusal> {
    let mut shown = Shown {
        key,
        hashes: Vec::new(),
    };
    let mut authorized = false;
    for field in head.fields.iter() {
        if field.name.eq_ignore_ascii_case(b"authorization") {
            if authorized {
                let why = "the request has two `Authorization` fields";
                return Err(Refusal::because(Code::BadRequest, why));
            }
            authorized = true;
        }
        shown.field(field.name, field.value);
    }
    shown.query(path.query().unwrap_or_default());
    if shown.hashes.len() > MAX_CREDENTIALS {
        let why = "the request has more than 64 different credentials";
        return Err(Refusal::because(Code::BadRequest, why));
    }
    Ok(shown.hashes)
}

/// The credentials found so far.
struct Shown<'k> {
    key: &'k CredentialKey,
    hashes: Vec<Box<str>>,
}

impl Shown<'_> {
    fn credential(&mut self, secret: &[u8]) {
        let secret = secret.trim_ascii();
        if secret.is_empty() || self.hashes.len() > MAX_CREDENTIALS {
            return;
        }
        let hash = self.key.hash(secret);
        if !self.hashes.contains(&hash) {
            self.hashes.push(hash);
        }
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        let name = name.to_ascii_lowercase();
        match name.as_slice() {
            b"authorization" => self.authorization(value),
            b"cookie" => self.cookies(value),
            b"sec-websocket-protocol" => self.subprotocols(value),
            name if carries_credential(name) => self.authorization(value),
            _ => {}
        }
    }

    /// A scheme with its parameters (RFC 9110 section 11.4), or a token without a scheme.
    fn authorization(&mut self, value: &[u8]) {
        let value = value.trim_ascii();
        let end = value.iter().position(u8::is_ascii_whitespace);
        let (scheme, rest) = value.split_at_checked(end.unwrap_or(0)).unwrap_or_default();
        let rest = rest.trim_ascii();
        match scheme.to_ascii_lowercase().as_slice() {
            b"basic" => self.basic(rest, value),
            b"bearer" | b"token" => self.credential(rest),
            scheme if scheme.starts_with(b"aws4-") || scheme.starts_with(b"goog4-") => {
                self.credential(signer(rest).unwrap_or(value));
            }
            // The name of an account, and a signature made with its key.
            b"aws" | b"goog1" | b"sharedkey" | b"sharedkeylite" => {
                self.credential(before(rest, b':').unwrap_or(value));
            }
            _ => self.credential(value),
        }
    }

    /// The password, or the user name if it is the token.
    fn basic(&mut self, encoded: &[u8], whole: &[u8]) {
        let Ok(decoded) = BASE64.decode(encoded) else {
            return self.credential(whole);
        };
        let Some(user) = before(&decoded, b':') else {
            return self.credential(&decoded);
        };
        let password = decoded.get(user.len() + 1..).unwrap_or_default();
        if password.is_empty() || password == b"x-oauth-basic" {
            return self.credential(user);
        }
        self.credential(password);
        // A server may accept a token in either place.
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
        if user.len() >= TOKEN_LENGTH && user.iter().all(plain) {
            self.credential(user);
        }
    }

    fn cookies(&mut self, value: &[u8]) {
        for cookie in value.split(|byte| *byte == b';') {
            let name = before(cookie, b'=').map_or(0, |name| name.len() + 1);
            self.credential(cookie.get(name..).unwrap_or_default());
        }
    }

    fn subprotocols(&mut self, value: &[u8]) {
        for protocol in value.split(|byte| *byte == b',') {
            let protocol = protocol.trim_ascii();
            let carried = SUBPROTOCOLS
                .iter()
                .find_map(|start| protocol.strip_prefix(start.as_bytes()));
            self.credential(carried.unwrap_or_default());
        }
    }

    fn query(&mut self, query: &str) {
        for part in query.split('&') {
            self.parameter(part);
            // Some servers treat `;` as the end of a parameter.
            if part.contains(';') {
                part.split(';').for_each(|part| self.parameter(part));
            }
        }
    }

    fn parameter(&mut self, part: &str) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let name = decoded(name).to_ascii_lowercase();
        let Ok(name) = std::str::from_utf8(&name) else {
            return;
        };
        if !PARAMETERS.contains(&name) {
            return;
        }
        let value = decoded(value);
        match name {
            "x-amz-credential" | "x-goog-credential" => {
                self.credential(before(&value, b'/').unwrap_or(&value));
            }
            _ => self.credential(&value),
        }
    }
}

/// The key id of a request signed with AWS signature version 4, or a similar scheme; `None` if the
/// text is ambiguous.
fn signer(parameters: &[u8]) -> Option<&[u8]> {
    let word = b"credential";
    let windows = parameters.windows(word.len());
    let named = windows.filter(|text| text.eq_ignore_ascii_case(word));
    if named.count() != 1 {
        return None;
    }
    let mut parts = parameters.split(|byte| *byte == b',' || *byte == b' ');
    let scope = parts.find_map(|part| part.strip_prefix(b"Credential="))?;
    before(scope, b'/')
}

fn before(text: &[u8], end: u8) -> Option<&[u8]> {
    let at = text.iter().position(|byte| *byte == end)?;
    text.get(..at)
}

/// A name or value of a query, decoded as forms are.
fn decoded(text: &str) -> Vec<u8> {
    percent_decode_str(&text.replace('+', " ")).collect()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::http::http1::{HeadLimits, parse_request};

    fn key() -> CredentialKey {
        CredentialKey::new("k.key", "a key of at least thirty-two letters")
    }

    /// The hashes of a request with this path and these fields.
    fn shown(path: &str, fields: &str) -> Result<Vec<Box<str>>, Refusal> {
        let text =
            format!("GET http://a.example{path} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n");
        let limits = HeadLimits {
            bytes: 64 * 1024,
            fields: 256,
        };
        let head = parse_request(&mut BytesMut::from(text.as_bytes()), limits);
        let head = head.unwrap().unwrap();
        of(&head, &Path::parse(path.as_bytes()).unwrap(), &key())
    }

    fn hashes(secrets: &[&str]) -> Vec<Box<str>> {
        let hash = |secret: &&str| key().hash(secret.as_bytes());
        secrets.iter().map(hash).collect()
    }

    #[track_caller]
    fn shows(path: &str, fields: &str, secrets: &[&str]) {
        assert_eq!(
            shown(path, fields).unwrap(),
            hashes(secrets),
            "{path} {fields}"
        );
    }

    fn basic(pair: &str) -> String {
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        format!("Authorization: Basic {encoded}\r\n")
    }

    #[test]
    fn a_token_is_one_credential_however_it_is_carried() {
        for fields in [
            "Authorization: Bearer sesame\r\n",
            "authorization: bearer   sesame\r\n",
            "Authorization: token sesame\r\n",
            "Authorization: sesame\r\n",
            "PRIVATE-TOKEN: sesame\r\n",
            "Job-Token: sesame\r\n",
            "x-api-key: sesame\r\n",
            "X-NuGet-ApiKey: sesame\r\n",
            "X-JFrog-Art-Api: sesame\r\n",
            "X-Vault-Token: sesame\r\n",
            "Cookie: session=sesame\r\n",
            "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sesame\r\n",
            &basic("ana:sesame"),
            &basic("x-access-token:sesame"),
            &basic("sesame:"),
            &basic("sesame:x-oauth-basic"),
        ] {
            shows("/", fields, &["sesame"]);
        }
        for path in [
            "/a?access_token=sesame",
            "/a?b=c&private_token=sesame",
            "/a?TOKEN=sesame",
            "/a?%74oken=s%65same",
            "/a?x=1;token=sesame",
        ] {
            shows(path, "", &["sesame"]);
        }
    }

    #[test]
    fn what_is_no_credential_shows_none() {
        let fields = "Accept: */*\r\nnpm-otp: 123456\r\nX-CSRF-Token: a\r\nIdempotency-Key: b\r\n\
                      Cookie: \r\nAuthorization: Bearer \r\nX-Amz-Security-Token: c\r\n";
        shows("/a?page=2&q=token&token=", fields, &["Bearer"]);
        shows("/a?page=2", "Cookie: a=\r\n", &[]);
    }

    #[test]
    fn every_credential_counts_not_only_the_first() {
        let fields = "Authorization: Bearer a\r\nx-api-key: b\r\nx-api-key: c\r\n\
                      Cookie: d=1; e=2\r\nCookie: f=3\r\n";
        shows(
            "/?key=k&key=l",
            fields,
            &["a", "b", "c", "1", "2", "3", "k", "l"],
        );
        // Servers differ in which of the two they accept.
        let both = format!("{}-{}", "a".repeat(20), "b");
        shows("/", &basic(&format!("{both}:good")), &["good", &both]);
        shows("/", &basic("ana@acme.example.com.org:good"), &["good"]);
    }

    #[test]
    fn what_is_hidden_behind_a_listed_one_is_no_longer_that_one() {
        for fields in [
            "Authorization: Bearer good, Bearer evil\r\n",
            "Authorization: Bearer good evil\r\n",
            "Authorization: Basic good\r\n",
            "Authorization: Digest good\r\n",
            &basic("user:good:evil"),
        ] {
            let shown = shown("/", fields).unwrap();
            assert!(shown.len() == 1 && shown != hashes(&["good"]), "{fields}");
        }
        let signed = "Authorization: AWS4-HMAC-SHA256 Credential=good/a/b, credential=evil/a/b\r\n";
        assert_ne!(shown("/", signed).unwrap(), hashes(&["good"]));
        let twice = "Authorization: Bearer good\r\nauthorization: Bearer evil\r\n";
        assert_eq!(shown("/", twice).unwrap_err().status(), 400);
    }

    #[test]
    fn of_a_signed_request_the_key_id_counts() {
        let scope = "20261126/eu-west-1/s3/aws4_request";
        let signed = format!(
            "Authorization: AWS4-HMAC-SHA256 Credential=AKID/{scope}, SignedHeaders=host, \
             Signature=0123\r\n"
        );
        shows("/", &signed, &["AKID"]);
        shows("/", &signed.replace(", ", ","), &["AKID"]);
        shows("/", "Authorization: AWS AKID:signature=\r\n", &["AKID"]);
        shows(
            "/",
            "Authorization: SharedKey acme:signature=\r\n",
            &["acme"],
        );
        let path = "/a?X-Amz-Credential=AKID%2F20261126%2Feu-west-1%2Fs3%2Faws4_request";
        shows(path, "", &["AKID"]);
        shows("/a?AWSAccessKeyId=AKID&Expires=1", "", &["AKID"]);
    }

    #[test]
    fn too_many_credentials_in_one_request_are_refused() {
        let many: Vec<_> = (0..100).map(|at| format!("c{at}=v{at}; ")).collect();
        let refused = shown("/", &format!("Cookie: {}z=1\r\n", many.concat())).unwrap_err();
        assert_eq!(refused.status(), 400);
    }
}
