//! Where a command's words are secrets by their place: behind a subcommand that takes one.

use super::shapes;

/// Subcommands all of whose words may be secrets.
const TAKE_SECRETS: &[&str] = &[
    "add-authtoken",
    "auth",
    "authenticate",
    "authtoken",
    "decrypt",
    "encrypt",
    "login",
    "obscure",
    "passwd",
    "signin",
    "unlock",
    "unwrap",
];
/// Subcommands behind which a name may stand, and then secrets.
const TAKE_SETTINGS: &[&str] = &[
    "config",
    "patch",
    "put",
    "requirepass",
    "set",
    "setx",
    "alias",
    "write",
];
/// Groups behind which any `add`, `create`, `new` or `update` takes a secret.
const GROUPS: &[&str] = &[
    "credential",
    "credentials",
    "env",
    "kv",
    "secret",
    "secrets",
    "secretsmanager",
    "service",
    "token",
    "tokens",
    "var",
    "variable",
    "variables",
    "vars",
    "versions",
];
/// Subcommands of those groups.
const ADDERS: &[&str] = &[
    "add", "create", "edit", "install", "new", "revoke", "update",
];
/// Subcommands behind which nothing is a secret.
const READERS: &[&str] = &[
    "delete",
    "get",
    "list",
    "ls",
    "remove",
    "show",
    "status",
    "unset",
    "use-context",
    "view",
];
/// Words behind a subcommand that are subcommands themselves.
const SUBCOMMANDS: &[&str] = &[
    "activate-service-account",
    "add",
    "alias",
    "auth",
    "config",
    "configure",
    "create",
    "disable",
    "docker",
    "edit",
    "enable",
    "get",
    "init",
    "list",
    "login",
    "logout",
    "ls",
    "new",
    "print-access-token",
    "put",
    "refresh",
    "remove",
    "secret",
    "service",
    "set",
    "setup-git",
    "show",
    "status",
    "token",
    "unset",
    "update",
    "view",
    "whoami",
];
/// Programs whose `login` takes the host of a registry.
const REGISTRY_CLIENTS: &[&str] = &[
    "argocd", "buildah", "crane", "docker", "helm", "nerdctl", "oc", "oras", "podman", "skopeo",
];
/// Programs whose words are files, text or patterns, and no subcommands.
const WITHOUT_SUBCOMMANDS: &[&str] = &[
    "bash", "cat", "cd", "chmod", "chown", "cp", "curl", "echo", "egrep", "fgrep", "find", "grep",
    "head", "less", "ls", "make", "mkdir", "mv", "node", "printf", "python", "python3", "rg", "rm",
    "rmdir", "sh", "stat", "tail", "tar", "touch", "tree", "vi", "vim", "wc", "wget", "which",
];
/// Words of a command among which a subcommand is looked for.
const MAX_DEPTH: usize = 4;

/// Which words of a command are secrets by their place.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    program: String,
    /// Words so far that are no flags.
    words: usize,
    in_group: bool,
    next: Next,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Next {
    #[default]
    Plain,
    /// A name, then secrets.
    Name,
    Secrets,
}

impl Places {
    /// The places of a program's words.
    pub(super) fn of(program: &str) -> Self {
        let program = program.to_owned();
        Self {
            program,
            ..Self::default()
        }
    }

    /// Takes a word that is no flag. Returns whether it is a secret.
    pub(super) fn is_secret(&mut self, word: &str) -> bool {
        let word = word.trim_matches(['\'', '"', ';', ')']);
        if WITHOUT_SUBCOMMANDS.contains(&self.program.as_str()) || word.is_empty() {
            return false;
        }
        self.words += 1;
        let lower = word.to_ascii_lowercase();
        let verb = lower.rsplit(':').next().unwrap_or_default();
        let is_subcommand =
            self.words <= MAX_DEPTH && self.next != Next::Secrets || SUBCOMMANDS.contains(&word);
        if is_subcommand && self.begins(verb) {
            return false;
        }
        let is_address = word.contains("://") || self.is_registry(word);
        match self.next {
            Next::Plain => false,
            Next::Name => {
                self.next = Next::Secrets;
                word.contains('=')
            }
            Next::Secrets => !is_address && !SUBCOMMANDS.contains(&word),
        }
    }

    /// Notes what a subcommand takes. Returns whether the word is one that takes something.
    fn begins(&mut self, verb: &str) -> bool {
        let in_group = self.in_group;
        self.in_group |= GROUPS.contains(&verb) || verb == "config";
        let next = if TAKE_SECRETS.contains(&verb) || in_group && ADDERS.contains(&verb) {
            Next::Secrets
        } else if TAKE_SETTINGS.contains(&verb) {
            Next::Name
        } else if READERS.contains(&verb) && self.next == Next::Name {
            Next::Plain
        } else {
            return false;
        };
        // `secrets set NAME`, but `service install SECRET`.
        self.next = match (next, verb) {
            (Next::Secrets, "add" | "create" | "edit" | "new" | "update") => Next::Name,
            _ => next,
        };
        true
    }

    fn is_registry(&self, word: &str) -> bool {
        REGISTRY_CLIENTS.contains(&self.program.as_str())
            && word.contains(['.', ':'])
            && shapes::masked(word) == word
    }
}
