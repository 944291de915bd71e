//! Where programs take secrets that have no name.

use super::names::Named;

/// The program that parts of a command are for.
#[derive(Clone, Debug, Default)]
pub(super) struct Program(String);

/// Programs whose `-p` and `-P` are no password.
const OTHER_P: &[&str] = &[
    "bash", "cargo", "claude", "cp", "git", "grep", "install", "jest", "kill", "less", "make",
    "mkdir", "mypy", "node", "nc", "npm", "patch", "perl", "ping", "ps", "pytest", "python",
    "python3", "read", "rm", "rmdir", "rsync", "scp", "sftp", "sh", "ssh", "strace", "tar", "test",
    "touch", "tsc", "xargs",
];
/// Programs all of whose words may be secrets.
const SECRETS_ONLY: &[&str] = &[
    "chpasswd",
    "expect",
    "htpasswd",
    "mkpasswd",
    "sqlplus",
    "wpa_passphrase",
];
/// Programs that write their words to another one's input.
const WRITERS: &[&str] = &["echo", "printf"];
/// Programs whose `-u` and `-d` are a request's.
const HTTP_CLIENTS: &[&str] = &["curl", "http", "https", "httpie", "wget", "xh"];
/// Programs that run another one.
const WRAPPERS: &[&str] = &[
    "command", "doas", "env", "exec", "nice", "nohup", "sudo", "time", "timeout",
];

impl Program {
    /// The program of a word in the place of a command.
    pub(super) fn named(word: &str) -> Self {
        let word = word.trim_start_matches(['\'', '"', '(', '{', '$', '`']);
        let name = word.rsplit('/').next().unwrap_or(word);
        Self(name.trim_end_matches(['\'', '"', ';', ')']).to_owned())
    }

    fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.0.as_str())
    }

    /// Whether every word of it may be a secret: it takes nothing else, or writes to a program that
    /// reads one.
    pub(super) fn takes_secrets(&self, feeds_stdin: bool) -> bool {
        self.is(SECRETS_ONLY) || feeds_stdin && self.is(WRITERS)
    }

    /// Whether it is a client of HTTP.
    pub(super) fn is_http_client(&self) -> bool {
        self.is(HTTP_CLIENTS)
    }

    /// Whether its `-p` may be a password.
    pub(super) fn may_take_password(&self) -> bool {
        !self.is(OTHER_P) && !self.is_http_client()
    }

    /// What the value of a flag is that only this program has, or that it has for something else.
    pub(super) fn flag(&self, flag: &str) -> Option<Named> {
        let starts = |prefix: &str| self.0.starts_with(prefix);
        Some(match flag {
            "-d" | "-F" | "-b" if self.is_http_client() => Named::Body,
            "-E" if self.is(&["curl"]) => Named::Secret,
            "-a" if self.is_http_client() => Named::Pair,
            "-a" | "--pass" if starts("redis") || starts("valkey") => Named::Secret,
            "-w" | "-y" if starts("ldap") => Named::Secret,
            "-k" | "-K" | "-S" | "-hmac" | "-macopt" if starts("openssl") => Named::Secret,
            "-pass" | "-passin" | "-passout" => Named::Secret,
            "-hp" if self.is(&["rar", "unrar", "7z"]) => Named::Secret,
            "-P" if self.is(&["curl", "wget"]) => Named::Nothing,
            "-u" | "-U" if self.is(&["docker", "podman", "sudo", "git", "date", "sort"]) => {
                Named::Nothing
            }
            _ => return None,
        })
    }
}

/// A short flag and the value that is written into the same word.
pub(super) fn attached<'p>(part: &'p str, program: &Program) -> Option<(&'p str, &'p str)> {
    let long = part.starts_with("-hp") && program.flag("-hp").is_some();
    let length = if long { 3 } else { 2 };
    let flag = part.get(..length)?;
    let value = part.get(length..).filter(|value| !value.is_empty())?;
    Some((flag, value))
}

/// Whether a word makes a program read a secret from its standard input.
pub(super) fn reads_secret(word: &str) -> bool {
    word.contains("-stdin")
        || word.contains("-passphrase-fd")
        || word.contains("chpasswd")
        || word.contains("sudo -S")
        || word.contains("passwd")
        || word.contains("-with-token")
        || word == "-S"
}

/// Whether the word behind this one is a script.
pub(super) fn takes_script(word: &str) -> bool {
    let flags = word.strip_prefix('-').unwrap_or_default();
    let short = flags.len() <= 4 && flags.bytes().all(|byte| byte.is_ascii_alphabetic());
    short && flags.ends_with('c') || word == "eval"
}

/// Whether a word only runs the program behind it.
pub(super) fn is_wrapper(word: &str) -> bool {
    WRAPPERS.contains(&word.rsplit('/').next().unwrap_or(word))
}
