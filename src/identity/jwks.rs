//! The keys of an issuer (RFC 7517), parsed strictly: any defect makes a key unusable.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

/// Keys of one issuer, at most; others are ignored.
const MAX_KEYS: usize = 64;
/// The accepted sizes of an RSA modulus, in bits.
const RSA: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The keys that an issuer published at one time.
pub(super) struct Keys {
    by_id: HashMap<Arc<str>, Key>,
    /// Identifies this set of keys.
    pub(super) mark: [u8; 32],
}

/// A key, with the algorithms it may verify.
#[derive(Clone)]
pub(super) struct Key {
    /// The verifying key.
    pub(super) decoding: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl Key {
    /// Whether the key may verify this algorithm.
    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

impl Keys {
    /// Parses a key set; `None` if it is malformed, or has no key for any of these algorithms.
    pub(super) fn parse(text: &[u8], algorithms: &[Algorithm]) -> Option<Self> {
        let set: Set = serde_json::from_slice(text).ok()?;
        let mut by_id: HashMap<Arc<str>, Option<Key>> = HashMap::new();
        for value in set.keys.into_iter().take(MAX_KEYS) {
            let Ok(jwk) = serde_json::from_value::<Jwk>(value) else {
                continue;
            };
            let key = key(&jwk, algorithms);
            // Two keys with one id are ambiguous: neither is used.
            by_id
                .entry(jwk.kid.as_str().into())
                .and_modify(|known| *known = None)
                .or_insert(key);
        }
        let sound = by_id.into_iter().filter_map(|(kid, key)| Some((kid, key?)));
        let by_id: HashMap<_, _> = sound.collect();
        let mut mark = [0; 32];
        mark.copy_from_slice(digest::digest(&digest::SHA256, text).as_ref());
        (!by_id.is_empty()).then_some(Self { by_id, mark })
    }

    /// The key with this id.
    pub(super) fn get(&self, kid: &str) -> Option<&Key> {
        self.by_id.get(kid)
    }
}

fn key(jwk: &Jwk, algorithms: &[Algorithm]) -> Option<Key> {
    let signs = jwk.r#use.as_deref().is_none_or(|it| it == "sig");
    let verifies = |ops: &Vec<String>| ops.iter().any(|op| op == "verify");
    if !signs || !jwk.key_ops.as_ref().is_none_or(verifies) || jwk.kid.is_empty() {
        return None;
    }
    let able: &[Algorithm] = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        ("EC", Some("P-256")) => &[Algorithm::ES256],
        ("EC", Some("P-384")) => &[Algorithm::ES384],
        ("OKP", Some("Ed25519")) => &[Algorithm::EdDSA],
        _ => return None,
    };
    let named = |able: &Algorithm| jwk.alg.as_deref().is_none_or(|alg| alg == name(*able));
    let able = able.iter().filter(|able| algorithms.contains(able));
    let able: Vec<Algorithm> = able.copied().filter(named).collect();
    if able.is_empty() {
        return None;
    }
    let decoding = match jwk.kty.as_str() {
        "RSA" => rsa(jwk)?,
        "EC" => DecodingKey::from_ec_components(&jwk.x, &jwk.y).ok()?,
        _ => DecodingKey::from_ed_components(&jwk.x).ok()?,
    };
    Some(Key {
        decoding,
        algorithms: able,
    })
}

fn rsa(jwk: &Jwk) -> Option<DecodingKey> {
    let modulus = URL_SAFE_NO_PAD.decode(&jwk.n).ok()?;
    let exponent = URL_SAFE_NO_PAD.decode(&jwk.e).ok()?;
    let start = modulus.iter().position(|byte| *byte != 0)?;
    let modulus = modulus.get(start..)?;
    let spare = usize::try_from(modulus.first()?.leading_zeros()).ok()?;
    let odd = exponent.last().is_some_and(|byte| byte & 1 == 1);
    let small = exponent.len() <= 5 && exponent != [1];
    if !RSA.contains(&(modulus.len() * 8 - spare)) || !odd || !small {
        return None;
    }
    Some(DecodingKey::from_rsa_raw_components(modulus, &exponent))
}

/// The name of an algorithm in JWS (RFC 7518, RFC 8037).
pub(super) fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        Algorithm::EdDSA => "EdDSA",
        Algorithm::PS256 => "PS256",
        Algorithm::PS384 => "PS384",
        Algorithm::PS512 => "PS512",
        Algorithm::RS256 => "RS256",
        Algorithm::RS384 => "RS384",
        Algorithm::RS512 => "RS512",
        _ => "none",
    }
}

/// The algorithm with this name, if it uses a public key.
pub(super) fn algorithm(text: &str) -> Option<Algorithm> {
    let known: Algorithm = text.parse().ok()?;
    (name(known) == text).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    const POINT: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

    fn knows(key: &str) -> bool {
        Keys::parse(format!("{{\"keys\":[{key}]}}").as_bytes(), &ALL).is_some()
    }

    fn rsa(bytes: usize, more: &str) -> String {
        let modulus = URL_SAFE_NO_PAD.encode(vec![0xff; bytes]);
        format!(r#"{{"kty":"RSA","kid":"a","n":"{modulus}","e":"AQAB"{more}}}"#)
    }

    #[test]
    fn only_keys_that_can_be_what_they_say_are_keys() {
        assert!(knows(&rsa(256, "")));
        assert!(knows(&rsa(256, r#","use":"sig","alg":"RS256""#)));
        assert!(knows(&format!(
            r#"{{"kty":"EC","crv":"P-256","kid":"a","x":"{POINT}","y":"{POINT}"}}"#
        )));
        assert!(knows(&format!(
            r#"{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{POINT}"}}"#
        )));
        for wrong in [
            rsa(255, ""),
            rsa(2048, ""),
            rsa(256, r#","use":"enc""#),
            rsa(256, r#","alg":"RS512""#),
            rsa(256, r#","alg":"HS256""#),
            rsa(256, r#","key_ops":["encrypt"]"#),
            rsa(256, "").replace("AQAB", "AQ"),
            rsa(256, "").replace("AQAB", "Ag"),
            rsa(256, "").replace(r#""kid":"a","#, ""),
            format!(r#"{{"kty":"EC","crv":"secp256k1","kid":"a","x":"{POINT}","y":"{POINT}"}}"#),
            format!(r#"{{"kty":"oct","kid":"a","k":"{POINT}"}}"#),
            String::new(),
        ] {
            assert!(!knows(&wrong), "{wrong}");
        }
    }

    #[test]
    fn two_keys_of_one_id_are_none() {
        let twice = format!("{},{}", rsa(256, ""), rsa(257, ""));
        assert!(!knows(&twice));
        let other = rsa(256, "").replace(r#""a""#, r#""b""#);
        let set = format!("{{\"keys\":[{twice},{other}]}}");
        let keys = Keys::parse(set.as_bytes(), &ALL).unwrap();
        assert!(keys.get("a").is_none() && keys.get("b").is_some());
    }

    #[test]
    fn secrets_and_nothing_are_no_algorithms() {
        assert_eq!(algorithm("RS256"), Some(Algorithm::RS256));
        for wrong in ["none", "None", "HS256", "HS512", "rs256", "", "RSA1_5"] {
            assert_eq!(algorithm(wrong), None, "{wrong}");
        }
    }
}
