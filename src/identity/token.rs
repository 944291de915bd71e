//! Session tokens: signed by a gate or by a launcher of sessions, verified by any gate.
//!
//! A JWT (RFC 7519) signed with Ed25519 (`EdDSA`, RFC 8037), of a type of its own (RFC 8725 section
//! 3.11), so that no other signed token is accepted as one. Every claim narrows or names; an
//! unknown claim could be a restriction, so the token is refused.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::policy::Within;

use super::grant::{Bound, Grant, Job, Line, Narrow, Work};
use super::{Evidence, RepositoryBasis};

/// `typ` of a session token.
pub const TYP: &str = "tidegate-session+jwt";
/// `iss` of a session token: the key identifies the gate.
const ISSUER: &str = "tidegate";
/// Bytes of a token, at most.
pub(super) const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// The tolerated difference between clocks.
pub(super) const SKEW: Duration = Duration::from_mins(1);

/// The claims of a session token.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Always `tidegate`.
    pub iss: String,
    /// The gates it is for: `identity.session.audience`.
    pub aud: String,
    /// The user, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// The time of signing, in seconds.
    pub iat: i64,
    /// The start of its validity, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// The end of its validity, in seconds.
    pub exp: i64,
    /// The id of the token.
    pub jti: String,
    /// The session's id.
    pub sid: String,
    /// The id of the root session; absent: its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Its ancestors: the ids of tokens, and names that sessions chose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// Repositories that only the session, or an ancestor, claims to work on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<String>,
    /// Other possible repositories of its folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// Whether the session was started without evidence, so that its claims are only asserted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asserted: bool,
    /// The agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The clone URL without scheme, user and `.git`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The source of the repository; absent: the launcher of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basis: Option<RepositoryBasis>,
    /// Another repository: the session is no looser than that repository's tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
    /// The branch or tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#ref: Option<String>,
    /// The commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Whether branch and commit come from an issuer's token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub issued_ref: bool,
    /// Groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The claims of the exchanged token, for the members of groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<(String, String)>,
    /// The tier of the repository, as set by its forge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// The organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// The CI job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobClaim>,
    /// The permission mode of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The channel that the token is restricted to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Restrictions beyond those of the repository.
    #[serde(default, skip_serializing_if = "NarrowClaim::is_empty")]
    pub narrow: NarrowClaim,
    /// The address and listener at which the token may be used.
    #[serde(default, skip_serializing_if = "BoundClaim::is_empty")]
    pub bound: BoundClaim,
}

/// A CI job.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JobClaim {
    /// The pipeline or workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// The run of the pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The job or step in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The runner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
}

/// The restrictions of a session.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NarrowClaim {
    /// Tiers that limit the session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<String>,
    /// The allowed categories, with or without an action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Vec<String>>,
}

/// The address and listener at which a token may be used.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BoundClaim {
    /// The network of allowed clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpNet>,
    /// The allowed listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<SocketAddr>,
}

impl NarrowClaim {
    /// Parses the restrictions; `None` if a category is unknown.
    pub fn read(&self) -> Option<Narrow> {
        let within = match &self.within {
            Some(words) => {
                let within = Within::parse(words.iter().map(String::as_str));
                Some(Arc::new(within.ok()?))
            }
            None => None,
        };
        Some(Narrow {
            tiers: self.tiers.iter().map(|tier| tier.as_str().into()).collect(),
            within,
        })
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<&Narrow> for NarrowClaim {
    fn from(narrow: &Narrow) -> Self {
        Self {
            tiers: narrow.tiers.iter().map(ToString::to_string).collect(),
            within: narrow
                .within
                .as_ref()
                .map(|within| within.words().collect()),
        }
    }
}

impl From<&Job> for JobClaim {
    fn from(job: &Job) -> Self {
        let text = |text: &Option<Arc<str>>| text.as_ref().map(ToString::to_string);
        Self {
            pipeline: text(&job.pipeline),
            run: text(&job.run),
            task: text(&job.task),
            worker: text(&job.worker),
        }
    }
}

impl BoundClaim {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The reason why a token is no evidence.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// The algorithm is not one of its issuer's.
    #[error("the token is signed with an algorithm that is not its issuer's")]
    Algorithm,
    /// The token is for another audience.
    #[error("the token is for another audience")]
    Audience,
    /// The token is bound to another address or listener.
    #[error("the token is bound to another address or listener")]
    Elsewhere,
    /// The token has expired.
    #[error("the token has expired")]
    Expired,
    /// The token belongs to another session than this listener, or than the username names.
    #[error("the token is of another session")]
    Foreign,
    /// Its issuer is not configured, or the issuer's keys cannot be fetched.
    #[error("the token's issuer is not known here")]
    Issuer,
    /// The key id is unknown.
    #[error("the token is signed with a key that is not known here")]
    Key,
    /// The token is malformed or of another kind.
    #[error("the token is malformed")]
    Malformed,
    /// The token is not valid yet.
    #[error("the token is not valid yet")]
    NotYet,
    /// A required claim is absent or has another value.
    #[error("the token lacks a claim that is required here")]
    Required,
    /// The token or its session was revoked.
    #[error("the token or its session was revoked")]
    Revoked,
    /// The signature is wrong: not by the issuer's key, or the token was changed.
    #[error("the token's signature is wrong")]
    Signature,
    /// The lifetime is longer than this gate allows.
    #[error("the token is valid for longer than tokens may be")]
    TooLong,
}

/// A public key with its id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublicKey {
    /// The first half of its SHA-256, as base64url.
    pub kid: Arc<str>,
    /// The 32 bytes of an Ed25519 public key.
    pub bytes: [u8; 32],
}

impl PublicKey {
    /// Computes the id of a key.
    pub fn new(bytes: [u8; 32]) -> Self {
        let hash = digest::digest(&digest::SHA256, &bytes);
        let half = hash.as_ref().get(..16).unwrap_or_default();
        Self {
            kid: URL_SAFE_NO_PAD.encode(half).into(),
            bytes,
        }
    }
}

/// Signs session tokens.
pub struct Signer {
    key: EncodingKey,
    public: PublicKey,
    ephemeral: bool,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("kid", &self.public.kid)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// A key in the memory of this process only. `None` if the system has no random bytes.
    pub fn ephemeral() -> Option<Self> {
        Some(Self {
            ephemeral: true,
            ..Self::from_pkcs8(&new_pkcs8()?)?
        })
    }

    /// Reads a key in PKCS#8 (RFC 8410). `None` if it is malformed.
    pub fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
        let public: [u8; 32] = pair.public_key().as_ref().try_into().ok()?;
        Some(Self {
            key: EncodingKey::from_ed_der(der),
            public: PublicKey::new(public),
            ephemeral: false,
        })
    }

    /// Whether the key exists in this process only.
    pub fn is_ephemeral(&self) -> bool {
        self.ephemeral
    }

    /// The public key of its tokens.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs claims. `None` if they cannot be encoded, which does not happen for the gate's own
    /// claims.
    pub fn mint(&self, claims: &Claims) -> Option<String> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYP.to_owned());
        header.kid = Some(self.public.kid.to_string());
        jsonwebtoken::encode(&header, claims, &self.key).ok()
    }
}

/// A new private key in PKCS#8. `None` if the system has no random bytes.
pub fn new_pkcs8() -> Option<Vec<u8>> {
    let pair = Ed25519KeyPair::generate().ok()?;
    let der = pair.to_pkcs8v1().ok()?;
    Some(der.as_ref().to_vec())
}

/// The header of a token before verification. Other fields are refused, so that `crit`, `jku` or
/// `jwk` cannot mislead the gate.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenHeader {
    alg: String,
    typ: String,
    kid: String,
}

/// Whether a token claims to be a session token, by the type in its header.
pub(super) fn is_session_token(token: &str) -> bool {
    #[derive(Deserialize)]
    struct Typed {
        typ: Option<String>,
    }
    let typed = part(token, 0).and_then(|json| serde_json::from_slice::<Typed>(&json).ok());
    typed.is_some_and(|header| header.typ.as_deref() == Some(TYP))
}

/// One of the three parts of a token, decoded.
pub(super) fn part(token: &str, at: usize) -> Option<Vec<u8>> {
    if token.len() > MAX_TOKEN_BYTES || token.split('.').count() != 3 {
        return None;
    }
    URL_SAFE_NO_PAD.decode(token.split('.').nth(at)?).ok()
}

/// Verifies session tokens, for one generation.
pub struct Tokens {
    keys: HashMap<Arc<str>, DecodingKey>,
    audience: Arc<str>,
    longest: Duration,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// Verifies tokens signed with one of these keys for that audience.
    pub fn new(
        keys: impl IntoIterator<Item = PublicKey>,
        audience: Arc<str>,
        longest: Duration,
    ) -> Self {
        let decoding = |key: PublicKey| {
            let decoding = DecodingKey::from_ed_der(&key.bytes);
            (key.kid, decoding)
        };
        Self {
            keys: keys.into_iter().map(decoding).collect(),
            audience,
            longest,
        }
    }

    /// Whether the key with this id is still accepted.
    pub fn knows(&self, kid: &str) -> bool {
        self.keys.contains_key(kid)
    }

    /// The grant of a token at `now`, without checks of address, listener and revocations.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Grant>, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let (kid, key) = self.key_of(token)?;
        let claims = self.claims(token, key)?;
        lifetime(&claims, self.longest, now)?;
        let grant = Arc::new(grant(claims, kid.clone())?);
        in_time(&grant, now)?;
        Ok(grant)
    }

    /// The key that a token names as its signer.
    fn key_of(&self, token: &str) -> Result<(&Arc<str>, &DecodingKey), TokenError> {
        let json = part(token, 0).ok_or(TokenError::Malformed)?;
        let header: TokenHeader =
            serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)?;
        if header.alg != "EdDSA" {
            return Err(TokenError::Algorithm);
        }
        if header.typ != TYP {
            return Err(TokenError::Malformed);
        }
        let known = self.keys.get_key_value(header.kid.as_str());
        known.ok_or(TokenError::Key)
    }

    fn claims(&self, token: &str, key: &DecodingKey) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(Algorithm::EdDSA);
        // The gate's clock gives the time; it is checked below.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.required_spec_claims.clear();
        validation.set_audience(&[&*self.audience]);
        validation.set_issuer(&[ISSUER]);
        let token = jsonwebtoken::decode::<Claims>(token, key, &validation);
        token
            .map(|token| token.claims)
            .map_err(|error| reason(&error))
    }

    /// The claims of every new token of this gate.
    pub fn blank(&self, session: &str, now: Timestamp, lifetime: Duration) -> Claims {
        let lifetime = lifetime.min(self.longest);
        let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        Claims {
            iss: ISSUER.to_owned(),
            aud: self.audience.to_string(),
            iat: now.as_second(),
            exp: now.as_second().saturating_add(seconds),
            jti: uuid::Uuid::now_v7().to_string(),
            sid: session.to_owned(),
            ..Claims::default()
        }
    }

    /// The longest lifetime of a token.
    pub fn longest(&self) -> Duration {
        self.longest
    }
}

/// The error of a failed verification.
pub(super) fn reason(error: &jsonwebtoken::errors::Error) -> TokenError {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => TokenError::Algorithm,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::MissingRequiredClaim(_) => TokenError::Required,
        _ => TokenError::Malformed,
    }
}

fn lifetime(claims: &Claims, longest: Duration, now: Timestamp) -> Result<(), TokenError> {
    let skew = i64::try_from(SKEW.as_secs()).unwrap_or(0);
    let longest = i64::try_from(longest.as_secs()).unwrap_or(i64::MAX);
    let begins = claims.nbf.unwrap_or(claims.iat).max(claims.iat);
    if begins > now.as_second().saturating_add(skew) {
        return Err(TokenError::NotYet);
    }
    if claims.exp.saturating_sub(claims.iat) > longest.saturating_add(skew) {
        return Err(TokenError::TooLong);
    }
    Ok(())
}

/// Whether a grant is still valid, within the tolerated clock skew.
pub(super) fn in_time(grant: &Grant, now: Timestamp) -> Result<(), TokenError> {
    let skew = jiff::SignedDuration::from_secs(60);
    let over = |expires: Timestamp| expires.saturating_add(skew).unwrap_or(expires) <= now;
    if grant.expires.is_some_and(over) {
        return Err(TokenError::Expired);
    }
    Ok(())
}

fn grant(claims: Claims, kid: Arc<str>) -> Result<Grant, TokenError> {
    let expires = Timestamp::from_second(claims.exp).map_err(|_| TokenError::Malformed)?;
    let narrow = claims.narrow.read().ok_or(TokenError::Malformed)?;
    let shared = |text: Option<String>| text.map(Arc::<str>::from);
    let all = |texts: Vec<String>| texts.into_iter().map(Arc::from).collect::<Vec<_>>();
    let session: Arc<str> = claims.sid.into();
    Ok(Grant {
        evidence: Evidence::Token,
        id: claims.jti.into(),
        issuer: kid,
        expires: Some(expires),
        root: Some(shared(claims.root).unwrap_or_else(|| session.clone())),
        session: Some(session),
        verified: !claims.asserted,
        subject: shared(claims.sub),
        groups: all(claims.groups),
        claims: claims
            .claims
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        repository: shared(claims.repository),
        basis: claims.basis.unwrap_or(RepositoryBasis::Session),
        beside: shared(claims.beside),
        tier: shared(claims.tier),
        narrow,
        bound: Bound {
            address: claims.bound.address,
            listener: claims.bound.listener,
        },
        line: Line {
            names: all(claims.from),
            said: all(claims.said),
            hints: all(claims.hints),
        },
        channel: shared(claims.channel),
        work: Arc::new(Work {
            agent: shared(claims.agent),
            ref_name: shared(claims.r#ref),
            revision: shared(claims.commit),
            issued_ref: claims.issued_ref,
            permission_mode: shared(claims.mode),
            organization: shared(claims.organization),
            job: claims.job.map(|job| Job {
                pipeline: shared(job.pipeline),
                run: shared(job.run),
                task: shared(job.task),
                worker: shared(job.worker),
            }),
        }),
    })
}

#[cfg(test)]
mod tests;
