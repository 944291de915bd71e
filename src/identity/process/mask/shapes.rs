//! Secrets by their form: tokens of well-known issuers, URLs, random text.

use super::MASK;

/// The prefixes of tokens of well-known issuers.
const PREFIXES: &[&str] = &[
    "A3T",
    "ABIA",
    "ACCA",
    "AGE-SECRET-KEY-",
    "AIza",
    "AKIA",
    "ASIA",
    "ATATT3",
    "ATCTT3",
    "CFPAT-",
    "EAAC",
    "EZAK",
    "EZTK",
    "FLWSECK",
    "GOCSPX-",
    "NRAK-",
    "NRJS-",
    "PMAK-",
    "SG.",
    "amzn.mws.",
    "api_org_",
    "bkua_",
    "dapi",
    "dckr_pat_",
    "doo_v1_",
    "dop_v1_",
    "dor_v1_",
    "dp.pt.",
    "dp.st.",
    "eyJ",
    "fig",
    "fio-u-",
    "fm1_",
    "fm2_",
    "fo1_",
    "gho_",
    "ghp_",
    "ghr_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glagent-",
    "glc_",
    "glcbt-",
    "gldt-",
    "glffct-",
    "glft-",
    "glimt-",
    "gloas-",
    "glpat-",
    "glptt-",
    "glrt-",
    "glsa_",
    "glsoat-",
    "gsk_",
    "hf_",
    "hvb.",
    "hvr.",
    "hvs.",
    "key-",
    "lin_api_",
    "npm_",
    "nvapi-",
    "ops_ey",
    "pk_live_",
    "pk_test_",
    "pplx-",
    "pul-",
    "pypi-",
    "r8_",
    "rk_live_",
    "rk_test_",
    "rubygems_",
    "sgp_",
    "shpat_",
    "shpca_",
    "shppa_",
    "shpss_",
    "sk-",
    "sk_live_",
    "sk_test_",
    "sntrys_",
    "sntryu_",
    "tfp_",
    "tskey-",
    "whsec_",
    "xai-",
    "xapp-",
    "xoxa-",
    "xoxb-",
    "xoxc-",
    "xoxd-",
    "xoxe-",
    "xoxo-",
    "xoxp-",
    "xoxr-",
    "xoxs-",
    "ya29.",
];
/// The minimum length of a token after its prefix.
const MIN_TOKEN: usize = 8;
/// The minimum length of random letters and digits.
const MIN_RANDOM: usize = 16;
/// The minimum length of random text with letters of both cases.
const MIN_MIXED: usize = 20;
/// The minimum length of Base64 with a slash, which could otherwise be a path.
const MIN_BASE64: usize = 32;

/// Masks the user, query and fragment of every URL, and every token and random text, in a part.
pub(super) fn masked(part: &str) -> String {
    if is_base64(part) {
        return MASK.to_owned();
    }
    let mut text = String::new();
    let mut rest = part;
    while let Some((before, after)) = rest.split_once("://") {
        let scheme = before.rfind(|letter: char| !is_word(letter) && letter != '+');
        let (front, scheme) = before.split_at(scheme.map_or(0, |at| at + 1));
        text.push_str(&pieces(front));
        text.push_str(scheme);
        text.push_str("://");
        let end = after.find([' ', '\'', '"', '<', '>', '|']);
        let (url, left) = after.split_at(end.unwrap_or(after.len()));
        text.push_str(&located(url));
        rest = left;
    }
    text + &pieces(rest)
}

/// Returns only the hosts of the URLs in a text.
pub(super) fn hosts(text: &str) -> String {
    let mut hosts = String::new();
    for (at, separator) in text.match_indices("://") {
        let (before, after) = text.split_at(at);
        let after = after.get(separator.len()..).unwrap_or_default();
        let scheme = before.rsplit(|letter: char| !letter.is_ascii_lowercase());
        let scheme = scheme.map(str::to_owned).next().unwrap_or_default();
        let end = after.find(|letter: char| !is_word(letter) && !".:@%[]".contains(letter));
        let authority = after.get(..end.unwrap_or(after.len())).unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        if !host.is_empty() && pieces(host) == host {
            hosts.extend([&*scheme, separator, host, "/", MASK]);
        }
    }
    if hosts.is_empty() {
        return MASK.to_owned();
    }
    hosts
}

/// The part of a URL after its scheme: host, port and the harmless segments of the path.
fn located(url: &str) -> String {
    let (url, tail) = match url.find(['?', '#']) {
        Some(at) => (
            url.get(..at).unwrap_or_default(),
            url.get(at..=at).unwrap_or_default(),
        ),
        None => (url, ""),
    };
    let (authority, path) = url.split_at(url.find('/').unwrap_or(url.len()));
    let mut text = String::new();
    let host = match authority.rsplit_once('@') {
        Some((_, host)) => {
            text.push_str(MASK);
            text.push('@');
            host
        }
        None => authority,
    };
    text.push_str(host);
    let is_hook = host.starts_with("hooks.") || path.contains("webhook") || path.contains("/bot");
    if is_hook && path.len() > 1 {
        text.push('/');
        text.push_str(MASK);
    } else {
        text.push_str(&pieces(path));
    }
    if !tail.is_empty() {
        text.push_str(tail);
        text.push_str(MASK);
    }
    text
}

/// Masks every piece of a text that is a token or random.
fn pieces(text: &str) -> String {
    let mut masked = String::new();
    for piece in text.split_inclusive(|letter: char| !is_word(letter) && letter != '.') {
        let end = piece.trim_end_matches(|letter: char| !is_word(letter) && letter != '.');
        if is_token(end) || end.split('.').any(is_random) {
            masked.push_str(MASK);
        } else {
            masked.push_str(end);
        }
        masked.push_str(piece.get(end.len()..).unwrap_or_default());
    }
    masked
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-')
}

/// Whether a piece is a token of a well-known issuer, or contains one after `-` or `_`.
fn is_token(piece: &str) -> bool {
    PREFIXES.iter().any(|prefix| {
        piece.match_indices(prefix).any(|(at, _)| {
            let begins = at == 0
                || piece
                    .as_bytes()
                    .get(at - 1)
                    .is_some_and(|it| !it.is_ascii_alphanumeric());
            let rest = piece.get(at + prefix.len()..).unwrap_or_default();
            begins && rest.len() >= MIN_TOKEN && !is_plain(rest)
        })
    })
}

/// Whether a text consists of lower-case words: `sk-learn-extra`, `key-value-store`.
fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

/// Whether a piece consists of random letters and digits.
fn is_random(piece: &str) -> bool {
    let has = |test: fn(&u8) -> bool| piece.as_bytes().iter().any(test);
    let (lower, upper, digit) = (
        has(u8::is_ascii_lowercase),
        has(u8::is_ascii_uppercase),
        has(u8::is_ascii_digit),
    );
    let run = |run: &str| {
        let letters = run.bytes().any(|byte| byte.is_ascii_alphabetic());
        let digits = run.bytes().any(|byte| byte.is_ascii_digit());
        run.len() >= MIN_RANDOM && letters && digits
    };
    piece.len() >= MIN_MIXED && lower && upper && (digit || flips(piece) > piece.len() / 4)
        || piece.split(['-', '_']).any(run)
        || is_uuid(piece)
}

/// The number of changes between upper and lower case.
fn flips(text: &str) -> usize {
    let bytes = text.as_bytes().windows(2);
    bytes
        .filter(|pair| matches!(pair, [one, other] if one.is_ascii_lowercase() && other.is_ascii_uppercase()))
        .count()
}

fn is_uuid(piece: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    piece.len() == 36 && piece.bytes().all(hex) && piece.matches('-').count() == 4
}

/// Whether a whole part is Base64 with a slash or a plus.
fn is_base64(part: &str) -> bool {
    let part = part.trim_matches(['\'', '"']);
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    let has = |test: fn(&u8) -> bool| part.as_bytes().iter().any(test);
    part.len() >= MIN_BASE64
        && !part.starts_with('/')
        && part.bytes().all(inside)
        && has(u8::is_ascii_lowercase)
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_digit)
}
