//! Converts the claims of an issuer's token to a grant.

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::config::{Issuer, Piece};
use crate::policy::canonical_repository;

use super::grant::{Bound, Grant, Job, Line, Narrow, Work};
use super::{Evidence, RepositoryBasis};

/// Claims that members of groups can name, at most.
const MAX_CLAIMS: usize = 128;
/// Bytes of a claim, at most.
const MAX_CLAIM_BYTES: usize = 512;
/// Claims about the token, not about its holder.
const ITS_OWN: [&str; 5] = ["aud", "exp", "iat", "jti", "nbf"];

/// Whether all claims have the values that the issuer's configuration requires.
pub(super) fn meets(issuer: &Issuer, claims: &Map<String, Value>) -> bool {
    issuer.require.iter().all(|(name, wanted)| {
        let found = find(claims, name).and_then(scalar);
        found.is_some_and(|value| wanted.fits(&value))
    })
}

/// The grant; `digest_of` identifies a token without an id.
pub(super) fn grant(
    issuer: &Issuer,
    claims: &Map<String, Value>,
    expires: Timestamp,
    digest_of: &str,
) -> Grant {
    let text = |field: &str| template(issuer, claims, field);
    let id = token_id(claims, digest_of);
    let session = text("session");
    Grant {
        evidence: Evidence::Oidc,
        issuer: issuer.name.clone(),
        expires: Some(expires),
        // Sessions without a session claim are revoked together with their token.
        root: Some(session.clone().unwrap_or_else(|| id.clone())),
        id,
        session,
        verified: true,
        subject: text("user"),
        groups: groups(issuer, claims),
        claims: exposed(claims),
        repository: repository(issuer, claims),
        basis: RepositoryBasis::Issuer,
        beside: text("beside")
            .and_then(|text| canonical_repository(&text))
            .map(Arc::from),
        tier: text("tier"),
        narrow: Narrow::default(),
        bound: Bound::default(),
        line: Line::default(),
        channel: None,
        work: Arc::new(Work {
            agent: text("agent"),
            ref_name: text("ref").map(|name| branch(&name)),
            revision: text("commit"),
            issued_ref: true,
            permission_mode: None,
            organization: text("organization"),
            job: job(issuer, claims),
        }),
    }
}

fn job(issuer: &Issuer, claims: &Map<String, Value>) -> Option<Job> {
    let text = |field: &str| template(issuer, claims, field);
    let job = Job {
        pipeline: text("pipeline"),
        run: text("run"),
        task: text("task"),
        worker: text("worker"),
    };
    (job != Job::default()).then_some(job)
}

/// `jti` if present; else the token's digest.
fn token_id(claims: &Map<String, Value>, token: &str) -> Arc<str> {
    let jti = claims.get("jti").and_then(Value::as_str);
    let sound = |jti: &&str| {
        (1..=253).contains(&jti.len()) && jti.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let hash = || {
        let hash = digest::digest(&digest::SHA256, token.as_bytes());
        URL_SAFE_NO_PAD.encode(hash.as_ref()).into()
    };
    jti.filter(sound).map_or_else(hash, Into::into)
}

/// The repository in canonical form; from the `repositories` table if there is one.
fn repository(issuer: &Issuer, claims: &Map<String, Value>) -> Option<Arc<str>> {
    let listed = || {
        let pipeline = template(issuer, claims, "pipeline")?;
        issuer.repositories.get(&pipeline).cloned()
    };
    let claimed = || {
        let text = template(issuer, claims, "repository")?;
        canonical_repository(&text).map(Arc::from)
    };
    listed().or_else(claimed)
}

/// The groups in the token, if the configuration names a claim for them.
fn groups(issuer: &Issuer, claims: &Map<String, Value>) -> Vec<Arc<str>> {
    let named = issuer
        .claims
        .get("groups")
        .and_then(|template| match template.alternatives() {
            [only] => match only.as_slice() {
                [Piece::Claim(name)] => find(claims, name).and_then(Value::as_array),
                _ => None,
            },
            _ => None,
        });
    match named {
        Some(list) => list
            .iter()
            .filter_map(scalar)
            .map(Arc::from)
            .take(MAX_CLAIMS)
            .collect(),
        None => template(issuer, claims, "groups").into_iter().collect(),
    }
}

/// Shortens `refs/heads/main` to `main`.
fn branch(name: &Arc<str>) -> Arc<str> {
    let short = ["refs/heads/", "refs/tags/"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix));
    short.map_or_else(|| name.clone(), Into::into)
}

/// The value of a field's template: the first alternative whose claims are all present.
fn template(issuer: &Issuer, claims: &Map<String, Value>, field: &str) -> Option<Arc<str>> {
    let template = issuer.claims.get(field)?;
    let made = template.alternatives().iter().find_map(|pieces| {
        let text: Option<String> = pieces
            .iter()
            .map(|piece| piece_of(issuer, claims, piece))
            .collect();
        text.filter(|text| !text.is_empty())
    })?;
    let sound = made.len() <= MAX_CLAIM_BYTES && !made.chars().any(char::is_control);
    sound.then(|| made.into())
}

fn piece_of(issuer: &Issuer, claims: &Map<String, Value>, piece: &Piece) -> Option<String> {
    match piece {
        Piece::Claim(name) => find(claims, name)
            .and_then(scalar)
            .filter(|value| !value.is_empty()),
        Piece::Forge => issuer.forge(),
        Piece::Text(text) => Some(text.to_string()),
    }
}

/// A claim by its name; `act.email` is the `email` of `act` if no claim has that whole name.
fn find<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    claims.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        find(claims.get(first)?.as_object()?, rest)
    })
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        _ => None,
    }
}

/// The claims for `claim:NAME=VALUE` members of groups.
fn exposed(claims: &Map<String, Value>) -> Vec<(Arc<str>, Arc<str>)> {
    let all = claims
        .iter()
        .filter(|(name, _)| !ITS_OWN.contains(&name.as_str()))
        .filter_map(|(name, value)| Some((name, scalar(value)?)))
        .filter(|(name, value)| name.len() <= MAX_CLAIM_BYTES && value.len() <= MAX_CLAIM_BYTES);
    all.map(|(name, value)| (name.as_str().into(), value.into()))
        .take(MAX_CLAIMS)
        .collect()
}
