//! Positions at which programs take unnamed secrets.

use super::names::Named;

/// The program of a part of a command.
#[derive(Clone, Debug, Default)]
pub(super) struct Program(String);

/// Programs whose `-p` and `-P` take no password.
const OTHER_P: &[&str] = &[
    "bash", "cargo", "claude", "cp", "git", "grep", "install", "jest", "kill", "less", "make",
    "ls", "mkdir", "mypy", "node", "nc", "npm", "npx", "patch", "perl", "ping", "ps", "pytest",
    "python", "python3", "read", "rm", "rmdir", "rsync", "scp", "sftp", "sh", "ssh", "strace",
    "tar", "test", "touch", "tsc", "xargs",
];
/// Programs whose words may all be secrets.
const SECRETS_ONLY: &[&str] = &[
    "chpasswd",
    "expect",
    "htpasswd",
    "mkpasswd",
    "sqlplus",
    "wpa_passphrase",
];
/// Programs that write their words to the input of another program.
const WRITERS: &[&str] = &["echo", "printf"];
/// Programs whose `-u` and `-d` belong to a request.
const HTTP_CLIENTS: &[&str] = &["curl", "http", "https", "httpie", "wget", "xh", "xhs"];
/// Programs that run another program.
const WRAPPERS: &[&str] = &[
    "command", "doas", "env", "eval", "exec", "nice", "nohup", "sudo", "time", "timeout",
];

/// Programs whose script is a shell script.
const SHELLS: &[&str] = &[
    "", "ash", "bash", "busybox", "dash", "fish", "flock", "ksh", "runuser", "script", "sh", "su",
    "zsh",
];
/// Languages and clients whose `-c` or `-e` takes code.
const INTERPRETERS: &[&str] = &[
    "bun",
    "deno",
    "elixir",
    "expect",
    "julia",
    "lua",
    "mariadb",
    "mysql",
    "node",
    "osascript",
    "perl",
    "php",
    "psql",
    "pwsh",
    "powershell",
    "python",
    "python2",
    "python3",
    "Rscript",
    "ruby",
    "sed",
];
/// Programs whose `-e` sets a variable.
const CONTAINERS: &[&str] = &[
    "act",
    "ansible",
    "ansible-playbook",
    "docker",
    "docker-compose",
    "nerdctl",
    "podman",
];
/// Programs whose words set variables.
const SETTERS: &[&str] = &[
    "declare", "env", "export", "local", "readonly", "set", "setenv", "typeset",
];
/// Programs that take a password in the same word as its flag.
const ATTACHING: &[&str] = &[
    "7z",
    "7za",
    "ldapadd",
    "ldapmodify",
    "ldapsearch",
    "mariadb",
    "mysql",
    "mysqladmin",
    "mysqldump",
    "rar",
    "sshpass",
    "unrar",
    "zip",
];
/// Programs that run another program, which may take secrets.
const RUNNERS: &[&str] = &[
    "chroot", "docker", "kubectl", "npx", "nsenter", "oc", "parallel", "podman", "poetry",
    "screen", "ssh", "sshpass", "strace", "tmux", "unshare", "uv", "watch", "xargs",
];
/// Programs that may take secrets, by the names that runners use.
const CLIENTS: &[&str] = &[
    "7z",
    "bash",
    "chpasswd",
    "curl",
    "env",
    "expect",
    "http",
    "ldapsearch",
    "mariadb",
    "mysql",
    "mysqladmin",
    "mysqldump",
    "node",
    "openssl",
    "perl",
    "php",
    "psql",
    "python",
    "python3",
    "redis-cli",
    "rsync",
    "ruby",
    "scp",
    "sh",
    "smbclient",
    "sqlplus",
    "ssh",
    "vault",
    "wget",
    "xh",
];
/// Programs whose `-t` takes a token.
const TOKEN_T: &[&str] = &[
    "codecov", "doctl", "fly", "flyctl", "gh", "glab", "heroku", "influx", "netlify", "railway",
    "snyk", "surge", "vercel",
];

impl Program {
    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// Whether the value of its `-c` is a shell script.
    pub(super) fn is_shell(&self) -> bool {
        self.is(SHELLS)
    }

    /// Whether one of its words with blanks is a shell script.
    pub(super) fn runs_words(&self) -> bool {
        self.is(&["parallel", "ssh", "tmux", "watch"])
    }

    /// Whether `word` names the program that this one runs.
    pub(super) fn runs_another(&self, word: &str) -> bool {
        let word = word.trim_matches(['\'', '"']);
        let name = word.rsplit('/').next().unwrap_or(word);
        self.is(RUNNERS) && CLIENTS.contains(&name)
    }

    /// Whether its words set variables.
    pub(super) fn sets_variables(&self) -> bool {
        self.is(SETTERS)
    }

    /// Whether a value in the same word as a flag is a password.
    pub(super) fn attaches_passwords(&self) -> bool {
        self.is(ATTACHING)
    }

    /// Whether a word is code: `s/TEXT/SECRET/` of `sed`.
    pub(super) fn is_code(&self, word: &str) -> bool {
        let word = word.trim_start_matches(['\'', '"']);
        let mut letters = word.chars();
        let is_substitution = letters.next() == Some('s')
            && letters
                .next()
                .is_some_and(|it| it.is_ascii_punctuation() && it != '-' && it != '.');
        self.is(&["sed", "gsed"]) && is_substitution
    }

    /// Whether `name=value` and `Name:value` are parts of a request.
    pub(super) fn takes_items(&self) -> bool {
        self.is(&["http", "https", "httpie", "xh", "xhs"])
    }

    /// Whether code may be in the same word as its flag.
    pub(super) fn attaches_code(&self) -> bool {
        self.is(&[
            "perl", "php", "psql", "python", "python2", "python3", "ruby", "sed", "mysql",
        ])
    }

    /// The program named by the first word of a command.
    pub(super) fn named(word: &str) -> Self {
        let word = word.trim_start_matches(['\'', '"', '(', '{', '$', '`']);
        let name = word.rsplit('/').next().unwrap_or(word);
        Self(name.trim_end_matches(['\'', '"', ';', ')']).to_owned())
    }

    fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.0.as_str())
    }

    /// Whether all of its words may be secrets: it takes nothing else, or writes to a program that
    /// reads a secret.
    pub(super) fn takes_secrets(&self, feeds_stdin: bool) -> bool {
        self.is(SECRETS_ONLY) || feeds_stdin && self.is(WRITERS)
    }

    /// Whether it is an HTTP client.
    pub(super) fn is_http_client(&self) -> bool {
        self.is(HTTP_CLIENTS)
    }

    /// Whether its `-p` may be a password.
    pub(super) fn may_take_password(&self) -> bool {
        !self.is(OTHER_P) && !self.is_http_client()
    }

    /// The kind of a flag's value, for a flag with a special meaning in this program.
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
            "-p" if self.is(&["mysql", "mysqldump", "mysqladmin", "mariadb", "sshpass"]) => {
                Named::Secret
            }
            "-N" | "-P" if self.is(&["ssh-keygen"]) => Named::Secret,
            "-b" if self.is(&["gh", "glab"]) => Named::Secret,
            "-t" if self.is(TOKEN_T) => Named::Secret,
            "-k" if self.is(&["dotnet", "gem", "nuget"]) => Named::Secret,
            "-w" if self.is(&["security"]) => Named::Secret,
            "-c" | "-A" | "-X" if starts("snmp") => Named::Secret,
            "-c" if self.is(&["git"]) => Named::Assignment,
            "-c" if self.is_shell() => Named::Script,
            "-e" if self.is(CONTAINERS) => Named::Assignment,
            "-c" | "-e" | "-r" | "-pe" | "-ne" | "-lne" | "-E" if self.is(INTERPRETERS) => {
                Named::Code
            }
            "-p" if self.is(&["bun", "node"]) => Named::Code,
            "-q" | "-Q" if self.is(&["sqlcmd", "clickhouse-client"]) => Named::Words,
            "--secret" | "--plaintext" if self.is(&["pulumi"]) => Named::Nothing,
            "-u" | "-U" if self.is(&["docker", "podman", "sudo", "git", "date", "sort"]) => {
                Named::Nothing
            }
            _ => return None,
        })
    }
}

/// A short flag and its value in the same word.
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

/// Whether the next word is a script.
pub(super) fn takes_script(word: &str) -> bool {
    let flags = word.strip_prefix('-').unwrap_or_default();
    let short = flags.len() <= 4 && flags.bytes().all(|byte| byte.is_ascii_alphabetic());
    short && flags.ends_with('c') || word == "eval"
}

/// Whether a word only runs the program after it, or is the duration for `timeout`.
pub(super) fn is_wrapper(word: &str) -> bool {
    let number = word.trim_end_matches(['s', 'm', 'h', 'd']);
    let is_time = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_time || WRAPPERS.contains(&word.rsplit('/').next().unwrap_or(word))
}
