//! Names of flags, variables, fields and keys whose value is a secret.

use super::programs::Program;

/// The kind of a flag's value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Named {
    /// No secret.
    Nothing,
    /// A secret.
    Secret,
    /// `user:secret`.
    Pair,
    /// A header field.
    Header,
    /// The content of a request: a body, a form, a cookie.
    Body,
    /// `NAME=secret`.
    Assignment,
    /// A name, with a secret in the next word.
    Name,
    /// Code.
    Code,
    /// Code, if it has more than one word.
    Words,
    /// A shell script.
    Script,
}

/// A name that contains one of these, with any separator between its words, marks a secret.
const INSIDE: &[&str] = &[
    "accountkey",
    "apikey",
    "apitoken",
    "authoriz",
    "bearer",
    "connectionstring",
    "cookie",
    "credential",
    "jsessionid",
    "pass",
    "phpsessid",
    "privatekey",
    "secret",
    "sharedaccess",
    "token",
    "webhook",
];
/// A name with one of these as a separate word marks a secret.
const WORDS: &[&str] = &[
    "auth",
    "cred",
    "creds",
    "dsn",
    "jwt",
    "key",
    "keys",
    "otp",
    "pat",
    "pin",
    "psk",
    "pw",
    "pwd",
    "sas",
    "sig",
    "signature",
    "totp",
];
/// Names with this ending have a path, or the source of a secret, as their value.
const PLACES: &[&str] = &[
    "file", "path", "stdin", "prompt", "dir", "fd", "env", "type",
];
/// Names that look secret and are not.
const PLAIN: &[&str] = &["PWD", "OLDPWD", "SSH_AUTH_SOCK"];
/// Header fields without secrets.
const PLAIN_HEADERS: &[&str] = &[
    "accept",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "if-modified-since",
    "if-none-match",
    "origin",
    "range",
    "user-agent",
];
/// Long flags whose value is `user:secret`.
const PAIRS: &[&str] = &["--user", "--proxy-user", "--auth", "--ftp-user", "--login"];
/// Long flags whose value is sent in a request.
const BODIES: &[&str] = &[
    "--body",
    "--body-data",
    "--data",
    "--data-ascii",
    "--data-binary",
    "--data-raw",
    "--data-urlencode",
    "--form",
    "--form-string",
    "--json",
    "--post-data",
    "--raw",
    "--url-query",
];
/// Long flags whose value is `NAME=secret`.
const ASSIGNMENTS: &[&str] = &[
    "--build-arg",
    "--build-env",
    "--env",
    "--env-vars",
    "--extra-vars",
    "--from-literal",
    "--parameter-overrides",
    "--parameters",
    "--set",
    "--set-env-vars",
    "--set-json",
    "--set-literal",
    "--set-string",
    "--update-env-vars",
    "--var",
    "-var",
];
/// Long flags whose value is code.
const CODE: &[&str] = &[
    "--command",
    "--eval",
    "--execute",
    "--exec",
    "--print",
    "--query",
];
/// Variables without secrets.
const PLAIN_VARIABLES: &[&str] = &[
    "CI",
    "DEBIAN_FRONTEND",
    "GOARCH",
    "GOOS",
    "HOME",
    "LANG",
    "LC_ALL",
    "NODE_ENV",
    "PATH",
    "PWD",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "TERM",
    "TZ",
];
/// Words that precede a secret without being a flag.
const ANNOUNCING: &[&str] = &["bearer", "basic", "password", "passphrase", "psk"];

/// Whether the value of an item with this name is a secret.
pub(super) fn is_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    if PLAIN.contains(&name) {
        return false;
    }
    let words = words(name);
    if words
        .last()
        .is_some_and(|last| PLACES.contains(&last.as_str()))
    {
        return false;
    }
    let bare: String = lower.chars().filter(char::is_ascii_alphanumeric).collect();
    INSIDE.iter().any(|part| bare.contains(part))
        || words.iter().any(|word| WORDS.contains(&word.as_str()))
        || words.last().is_some_and(|last| last.ends_with("key"))
}

/// The words of `AWS_SECRET_ACCESS_KEY`, `api-key`, `accessKey`, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before_is_lower = false;
    for letter in name.chars() {
        let splits = !letter.is_ascii_alphanumeric();
        if splits || letter.is_ascii_uppercase() && before_is_lower {
            words.push(String::new());
        }
        before_is_lower = letter.is_ascii_lowercase();
        if !splits && let Some(last) = words.last_mut() {
            last.push(letter.to_ascii_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The kind of a flag's value, for `program`.
pub(super) fn flag(flag: &str, program: &Program) -> Named {
    let flag = flag.trim_end_matches(['\'', '"']);
    if let Some(named) = program.flag(flag) {
        return named;
    }
    if PAIRS.contains(&flag) {
        return Named::Pair;
    }
    if BODIES.contains(&flag) {
        return Named::Body;
    }
    if ASSIGNMENTS.contains(&flag) {
        return Named::Assignment;
    }
    if CODE.contains(&flag) {
        return Named::Words;
    }
    match flag {
        "-H" | "--header" | "--proxy-header" | "--add-header" => Named::Header,
        "-u" | "-U" => Named::Pair,
        "--arg" | "--argjson" | "--argstr" => Named::Name,
        "-c" | "-e" => Named::Words,
        "-p" | "-P" if program.may_take_password() => Named::Secret,
        _ if flag.len() > 2 && is_secret(flag.trim_start_matches('-')) => Named::Secret,
        _ => Named::Nothing,
    }
}

/// Whether a word is a flag of letters, like `-keypass`, with a secret name.
pub(super) fn is_secret_flag(part: &str, program: &Program) -> bool {
    let letters = part.strip_prefix('-').unwrap_or_default();
    letters.len() > 2
        && letters
            .bytes()
            .all(|byte| byte.is_ascii_alphabetic() || byte == b'-')
        && flag(part, program) == Named::Secret
}

/// Whether a name has the form of a variable's.
pub(super) fn is_variable(name: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(inside)
}

/// Whether a variable is known to have no secret.
pub(super) fn is_plain_variable(name: &str) -> bool {
    PLAIN_VARIABLES.contains(&name)
}

/// Finds `NAME=SECRET`, `name: SECRET`, `{"name":"SECRET"` anywhere in a part. Returns the text to
/// keep, and the secret.
pub(super) fn assigned(part: &str) -> Option<(&str, &str)> {
    let separators = part.match_indices(['=', ':']);
    for (at, separator) in separators {
        let (before, after) = part.split_at(at);
        let after = after.get(separator.len()..).unwrap_or_default();
        let name = before.trim_end_matches(['\'', '"', '\\']);
        let from = name
            .rfind(|letter: char| !(letter.is_ascii_alphanumeric() || "_-.".contains(letter)))
            .map_or(0, |at| at + 1);
        let name = name.get(from..).unwrap_or_default();
        // Nothing after `=` is an empty value; after `:` the value is the next part.
        let has_value = !after.is_empty() || separator == ":" && !before.ends_with(':');
        let short = separator == ":" && before.ends_with("/p");
        if has_value && (short || is_secret(name)) {
            return Some((part.get(..=at).unwrap_or_default(), after));
        }
    }
    None
}

/// Whether a word that is not a flag precedes a secret: `Bearer X`, `password X`, a key of settings
/// (`aws_secret_access_key X`), SQL's `identified by X`.
pub(super) fn announces(part: &str, before: &str) -> bool {
    let bare = part.trim_matches(['\'', '"', ':']);
    let lower = bare.to_ascii_lowercase();
    let is_sql = lower == "by" && before.eq_ignore_ascii_case("identified");
    if is_sql || ANNOUNCING.contains(&lower.as_str()) {
        return true;
    }
    let is_key = bare
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_.-:/".contains(&byte));
    let named = bare.contains('_') || bare.contains('.') && !bare.contains('/');
    let last = bare.rsplit(['.', ':', '/']).next().unwrap_or_default();
    is_key && named && !bare.contains("://") && is_secret(last)
}

/// Whether a header field of this name has no secret.
pub(super) fn is_plain_header(name: &str) -> bool {
    PLAIN_HEADERS.contains(&name.to_ascii_lowercase().as_str())
}
