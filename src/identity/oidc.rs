//! Tokens of CI providers and other issuers (`OpenID` Connect): each is verified for exactly one
//! issuer, whose algorithms, audience and keys are pinned.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config;
use crate::dial::{Dialer, Document, DocumentError, Wanted};
use crate::metrics::Metrics;
use crate::name::Url;
use crate::policy::Guard;
use crate::tls;

use super::cache::Verified;
use super::claimed;
use super::grant::Grant;
use super::journal::{Journal, OwnFetch};
use super::jwks::{self, Key, Keys};
use super::keyring::{Fetched, Keyring};
use super::token::{self, SKEW, TokenError};

/// Verified tokens that are cached, of all issuers.
const REMEMBERED: usize = 4096;

/// The means to reach issuers in one generation.
#[derive(Clone, Debug)]
pub struct Reach {
    /// The dialer.
    pub dialer: Arc<Dialer>,
    /// The addresses of the gate itself, which it never dials.
    pub guard: Arc<Guard>,
    /// The metrics of fetches.
    pub metrics: Metrics,
    /// The record of fetches.
    pub journal: Arc<dyn Journal>,
}

/// The issuers of one generation.
pub(super) struct Issuers {
    known: Vec<Known>,
    reach: Reach,
    verified: Verified<Arc<Grant>>,
}

struct Known {
    config: config::Issuer,
    algorithms: Vec<Algorithm>,
    keyring: Arc<Keyring>,
    tls: Option<tls::Client>,
}

impl std::fmt::Debug for Issuers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuers")
            .field("issuers", &self.known.len())
            .finish_non_exhaustive()
    }
}

impl Issuers {
    /// Keeps the keys of the earlier generation if their issuer's configuration is the same;
    /// verified tokens are verified again.
    pub(super) fn new(issuers: &[config::Issuer], before: Option<&Self>, reach: Reach) -> Self {
        let known = |issuer: &config::Issuer| {
            let before = before.and_then(|before| before.of_config(issuer));
            let keyring = before.map_or_else(
                || Arc::new(Keyring::new(issuer.stale)),
                |before| before.keyring.clone(),
            );
            let tls = match before.and_then(|before| before.tls.clone()) {
                Some(tls) => Some(tls),
                None => connector(issuer),
            };
            let algorithms = issuer.algorithms.iter();
            Known {
                config: issuer.clone(),
                algorithms: algorithms
                    .filter_map(|name| jwks::algorithm(name))
                    .collect(),
                keyring,
                tls,
            }
        };
        Self {
            known: issuers.iter().map(known).collect(),
            reach,
            verified: Verified::new(REMEMBERED),
        }
    }

    fn of_config(&self, config: &config::Issuer) -> Option<&Known> {
        self.known.iter().find(|known| known.config == *config)
    }

    /// Whether an issuer with this name is configured.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.known.iter().any(|known| *known.config.name == *name)
    }

    /// The grant of a token at `now`, without a check of revocations.
    pub(super) async fn verify(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<Arc<Grant>, TokenError> {
        let (issuer, token) = self.issuer_of(token)?;
        let keys = issuer.keyring.keys(now, || self.fetch(issuer)).await;
        let keys = keys.ok_or(TokenError::Issuer)?;
        // The mark contains the keys, so that a token of a withdrawn key is verified again.
        let mark = |keys: &Keys| {
            let name = issuer.config.name.as_bytes();
            self.verified.mark(&[name, &keys.mark, token.as_bytes()])
        };
        if let Some(grant) = self.verified.get(mark(&keys)) {
            return token::in_time(&grant, now).map(|()| grant);
        }
        let header = Header::of(token, &issuer.algorithms)?;
        let keys = if keys.get(&header.kid).is_some() {
            keys
        } else {
            let newer = issuer
                .keyring
                .newer(&keys, now, || self.fetch(issuer))
                .await;
            newer.ok_or(TokenError::Key)?
        };
        let key = keys.get(&header.kid).ok_or(TokenError::Key)?;
        let grant = Arc::new(issuer.grant(token, &header, key, now)?);
        self.verified.put(mark(&keys), grant.clone());
        Ok(grant)
    }

    /// The issuer for which a token is verified, and the JWT.
    fn issuer_of<'t>(&self, token: &'t str) -> Result<(&Known, &'t str), TokenError> {
        #[derive(Deserialize)]
        struct Unverified {
            iss: String,
        }
        if token.len() > token::MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let mut prefixes = self.known.iter().map(|known| known.config.prefix);
        let prefix = prefixes.find(|prefix| !prefix.is_empty() && token.starts_with(prefix));
        let prefix = prefix.unwrap_or_default();
        let jwt = token.strip_prefix(prefix).unwrap_or(token);
        let json = token::part(jwt, 1).ok_or(TokenError::Issuer)?;
        let claims: Unverified =
            serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)?;
        let mut issuers = self.known.iter();
        let found = issuers
            .find(|known| known.config.prefix == prefix && *known.config.issuer == *claims.iss);
        found.map(|known| (known, jwt)).ok_or(TokenError::Issuer)
    }

    async fn fetch(&self, issuer: &Known) -> Fetched {
        let fetched = self.try_fetch(issuer).await;
        self.reach.metrics.issuer_fetched(fetched.is_ok());
        let name = &issuer.config.name;
        match fetched {
            Ok((keys, max_age)) => {
                tracing::info!(issuer = %name, ?max_age, "fetched the keys of an issuer");
                Some((keys, max_age))
            }
            Err(why) => {
                tracing::warn!(issuer = %name, %why, "the keys of an issuer cannot be fetched");
                None
            }
        }
    }

    async fn try_fetch(&self, issuer: &Known) -> Result<(Keys, Option<Duration>), FetchError> {
        let url = match &issuer.config.jwks {
            Some(url) => url.clone(),
            None => self.discover(issuer).await?,
        };
        let Document { body, max_age } = self.document(issuer, &url).await?;
        let keys = Keys::parse(&body, &issuer.algorithms).ok_or(FetchError::NoKeys)?;
        Ok((keys, max_age))
    }

    /// The URL of the issuer's keys, from its discovery document; must be at the issuer's own host.
    async fn discover(&self, issuer: &Known) -> Result<Url, FetchError> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }
        let base = issuer.config.issuer.trim_end_matches('/');
        let place = format!("{base}/.well-known/openid-configuration");
        let place = Url::parse(place.as_bytes()).map_err(|_| FetchError::Discovery)?;
        let document = self.document(issuer, &place).await?;
        let said: Discovery =
            serde_json::from_slice(&document.body).map_err(|_| FetchError::Discovery)?;
        if said.issuer != *issuer.config.issuer {
            return Err(FetchError::OtherIssuer);
        }
        let url = Url::parse(said.jwks_uri.as_bytes()).map_err(|_| FetchError::Discovery)?;
        if !url.tls || url.target != place.target {
            return Err(FetchError::OtherHost);
        }
        Ok(url)
    }

    async fn document(&self, issuer: &Known, url: &Url) -> Result<Document, FetchError> {
        let wanted = Wanted {
            url,
            addresses: &issuer.config.addresses,
            guard: &self.reach.guard,
            tls: issuer.tls.as_ref().ok_or(FetchError::NoRoots)?,
        };
        let mut fetch = OwnFetch {
            rule: format!("identity.issuer.{}", issuer.config.name),
            sends: None,
            target: url.target.clone(),
            answers: Box::default(),
        };
        let Reach {
            dialer, journal, ..
        } = &self.reach;
        let route = match dialer.find(&wanted).await {
            Ok(route) => route,
            Err(error) => {
                journal.refused(&fetch, error.code()).await;
                return Err(error.into());
            }
        };
        fetch.answers.clone_from(&route.answers);
        let open = journal.decided(&fetch).await;
        let open = open.ok_or(FetchError::Unrecorded)?;
        let document = dialer.document(&wanted, &route).await;
        let length = |it: &Document| u64::try_from(it.body.len()).unwrap_or(u64::MAX);
        open.close(document.as_ref().map(length).map_err(DocumentError::code));
        Ok(document?)
    }
}

impl Known {
    fn grant(
        &self,
        token: &str,
        header: &Header,
        key: &Key,
        now: Timestamp,
    ) -> Result<Grant, TokenError> {
        if !key.is_for(header.algorithm) {
            return Err(TokenError::Algorithm);
        }
        let mut validation = Validation::new(header.algorithm);
        // The gate's clock gives the time; it is checked below.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.set_required_spec_claims(&["aud", "iss"]);
        validation.set_audience(&[&*self.config.audience]);
        validation.set_issuer(&[&*self.config.issuer]);
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &key.decoding, &validation);
        let claims = decoded.map_err(|error| token::reason(&error))?.claims;
        let expires = self.in_time(&claims, now)?;
        if !claimed::meets(&self.config, &claims) {
            return Err(TokenError::Required);
        }
        let grant = claimed::grant(&self.config, &claims, expires, token);
        token::in_time(&grant, now).map(|()| grant)
    }

    /// The expiry of a token, if it is already valid and its lifetime is not too long.
    fn in_time(
        &self,
        claims: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<Timestamp, TokenError> {
        let skew = seconds(SKEW);
        let now = now.as_second();
        let expires = time(claims, "exp")?.ok_or(TokenError::Required)?;
        let issued = time(claims, "iat")?;
        let begins = time(claims, "nbf")?.max(issued);
        if begins.is_some_and(|begins| begins > now.saturating_add(skew)) {
            return Err(TokenError::NotYet);
        }
        let longest = seconds(self.config.longest).saturating_add(skew);
        if expires.saturating_sub(issued.unwrap_or(now)) > longest {
            return Err(TokenError::TooLong);
        }
        Timestamp::from_second(expires).map_err(|_| TokenError::Malformed)
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// A `NumericDate` (RFC 7519 section 2), which may have a fraction.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, TokenError> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
    let whole = || value.as_f64().map(|seconds| seconds.floor() as i64);
    let seconds = value.as_i64().or_else(whole).ok_or(TokenError::Malformed)?;
    Ok(Some(seconds))
}

/// The used fields of a token's header: none of them names the location of keys.
struct Header {
    algorithm: Algorithm,
    kid: String,
}

impl Header {
    fn of(token: &str, algorithms: &[Algorithm]) -> Result<Self, TokenError> {
        #[derive(Deserialize)]
        struct Said {
            alg: String,
            kid: Option<String>,
            typ: Option<String>,
            crit: Option<Value>,
        }
        let json = token::part(token, 0).ok_or(TokenError::Malformed)?;
        let said: Said = serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)?;
        let algorithm = jwks::algorithm(&said.alg);
        let algorithm = algorithm.filter(|it| algorithms.contains(it));
        let algorithm = algorithm.ok_or(TokenError::Algorithm)?;
        let plain = said.typ.is_none_or(|typ| typ.eq_ignore_ascii_case("JWT"));
        if !plain || said.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        Ok(Self {
            algorithm,
            kid: said.kid.ok_or(TokenError::Key)?,
        })
    }
}

/// The reason why keys cannot be fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the discovery document cannot be read")]
    Discovery,
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("the key set has no usable key")]
    NoKeys,
    #[error("no root certificates are known")]
    NoRoots,
    #[error("the fetch cannot be recorded")]
    Unrecorded,
    #[error("the discovery document names keys at another host: if this is intended, set `jwks`")]
    OtherHost,
    #[error("the discovery document is of another issuer")]
    OtherIssuer,
}

fn connector(issuer: &config::Issuer) -> Option<tls::Client> {
    match tls::Client::trusting(&issuer.roots) {
        Ok(tls) => Some(tls),
        Err(error) => {
            tracing::error!(issuer = %issuer.name, %error, "the keys of an issuer cannot be fetched");
            None
        }
    }
}

#[cfg(test)]
mod tests;
