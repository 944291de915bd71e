//! Command lines without the secrets that people put there.
//!
//! Erring on one side: what looks like a secret is not written, at the price of a word too few.

/// What stands for a secret.
const MASK: &str = "***";
/// Flags, variables and header fields with one of these in their name carry a secret.
const SECRET: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api-key",
    "api_key",
    "credential",
    "authorization",
    "cookie",
    "private-key",
    "private_key",
    "access-key",
    "access_key",
];
/// Flags whose value is `user:secret`.
const PAIRS: &[&str] = &["-u", "--user", "-U", "--proxy-user"];
/// How tokens of well-known issuers begin.
const SHAPES: &[&str] = &[
    "sk-",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "npm_",
    "pypi-",
    "AKIA",
    "ASIA",
    "eyJ",
];

/// The words of a command, joined, with what looks like a secret taken out.
pub(super) fn masked(words: &[String]) -> String {
    let mut expects = Expects::Nothing;
    let mut text = Vec::new();
    for word in words {
        // A whole script can be one word: its own words are looked at the same way.
        for part in word.split_whitespace() {
            text.push(one(part, &mut expects));
        }
        if expects == Expects::Rest {
            expects = Expects::Nothing;
        }
    }
    text.join(" ")
}

/// What the next word is, by the one before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Expects {
    Nothing,
    /// `user:secret`.
    Pair,
    /// The value of a header field, up to the end of its quotes.
    Rest,
    /// A secret.
    Secret,
}

fn one(word: &str, expects: &mut Expects) -> String {
    let ends = word.ends_with(['\'', '"']);
    match std::mem::replace(expects, Expects::Nothing) {
        Expects::Secret if !word.starts_with('-') => return MASK.to_owned(),
        Expects::Pair => {
            return match word.split_once(':') {
                Some((user, _)) => format!("{user}:{MASK}"),
                None => word.to_owned(),
            };
        }
        Expects::Rest => {
            if !ends {
                *expects = Expects::Rest;
            }
            return MASK.to_owned();
        }
        Expects::Nothing | Expects::Secret => {}
    }
    let bare = word.trim_start_matches(['\'', '"', '-', '(', '{']);
    if let Some((name, value)) = bare.split_once('=')
        && is_secret(name)
        && !value.is_empty()
    {
        let kept = word.len() - value.len();
        return format!("{}{MASK}", word.get(..kept).unwrap_or_default());
    }
    if let Some((name, value)) = bare.split_once(':')
        && is_secret(name)
        && !name.contains('/')
    {
        if value.is_empty() && !ends {
            *expects = Expects::Rest;
        }
        let mask = if value.is_empty() { "" } else { MASK };
        return format!("{name}:{mask}");
    }
    if PAIRS.contains(&word) {
        *expects = Expects::Pair;
    } else if let Some(pair) = attached(word) {
        return pair;
    } else if word.starts_with('-') && is_secret(bare) {
        *expects = Expects::Secret;
    }
    if SHAPES
        .iter()
        .any(|shape| bare.starts_with(shape) && bare.len() > shape.len() + 8)
    {
        return MASK.to_owned();
    }
    url(word)
}

/// `-uana:secret`.
fn attached(word: &str) -> Option<String> {
    let rest = word
        .strip_prefix("-u")
        .or_else(|| word.strip_prefix("-U"))?;
    let (user, _) = rest.split_once(':')?;
    Some(format!("{}{user}:{MASK}", word.get(..2)?))
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|secret| name.contains(secret))
}

/// A URL without what stands before its host.
fn url(word: &str) -> String {
    let mut text = String::new();
    let mut rest = word;
    while let Some((scheme, after)) = rest.split_once("://") {
        let authority = after.find(['/', '?', '#', ' ', '\'', '"']);
        let (authority, path) = after.split_at(authority.unwrap_or(after.len()));
        text.push_str(scheme);
        text.push_str("://");
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                text.push_str(MASK);
                text.push('@');
                text.push_str(host);
            }
            None => text.push_str(authority),
        }
        rest = path;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        masked(&words)
    }

    #[test]
    fn secrets_are_taken_out() {
        for words in [
            &["curl", "-u", "ana:hush", "https://a.example/"][..],
            &["curl", "-uana:hush"],
            &["curl", "--user", "ana:hush"],
            &["curl", "https://ana:hush@a.example/x"],
            &["git", "clone", "https://hush@a.example/x"],
            &["curl", "-H", "Authorization: Bearer hush"],
            &["curl", "-H", "X-Api-Key: hush", "https://a.example/"],
            &["curl", "--header", "authorization:hush"],
            &["login", "--password", "hush"],
            &["login", "--password=hush"],
            &["login", "--access-token", "hush"],
            &["env", "AWS_SECRET_ACCESS_KEY=hush", "aws"],
            &["env", "NPM_TOKEN=hush", "npm"],
            &[
                "bash",
                "-c",
                "curl -H 'Authorization: Bearer hush' -u ana:hush https://a.example/",
            ],
            &[
                "bash",
                "-c",
                "PASSWORD=hush run; curl https://ana:hush@a.example",
            ],
            &["echo", "sk-hush-0123456789"],
            &["echo", "ghp_hush0123456789"],
            &[
                "curl",
                "-x",
                "http://proxy:hush@a.example:1",
                "https://b:hush@c.example/",
            ],
        ] {
            let text = mask(words);
            assert!(!text.contains("hush"), "{text}");
            assert!(text.contains("***"), "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for words in [
            &[
                "curl",
                "-sS",
                "https://a.example/token/x",
                "-H",
                "Accept: text/plain",
            ][..],
            &["git", "clone", "https://a.example/x@y"],
            &["npm", "install", "left-pad@1.3.0"],
            &["python3", "-m", "http.server", "8000"],
        ] {
            assert_eq!(mask(words), words.join(" "));
        }
        let text = mask(&[
            "bash",
            "-c",
            "curl -H 'Authorization: Bearer hush' https://a.example/",
        ]);
        assert!(text.ends_with("https://a.example/"), "{text}");
    }
}
