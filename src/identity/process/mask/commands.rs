//! Secrets by position: words after a subcommand that takes a secret.

use super::shapes;

/// Subcommands whose words may all be secrets.
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
/// Subcommands with an optional name, followed by secrets.
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
/// Groups whose subcommands `add`, `create`, `new` or `update` take a secret.
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
/// Subcommands without secrets.
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
/// Words after a subcommand that are subcommands themselves.
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
/// Programs whose words are files, text or patterns, not subcommands.
const WITHOUT_SUBCOMMANDS: &[&str] = &[
    "bash", "cat", "cd", "chmod", "chown", "cp", "curl", "echo", "egrep", "fgrep", "find", "grep",
    "head", "less", "ls", "make", "mkdir", "mv", "node", "printf", "python", "python3", "rg", "rm",
    "rmdir", "sh", "stat", "tail", "tar", "touch", "tree", "vi", "vim", "wc", "wget", "which",
];
/// Words of a command that are searched for a subcommand.
const MAX_DEPTH: usize = 4;

/// Finds the words of a command that are secrets by their position.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    program: String,
    /// The number of words so far that are not flags.
    words: usize,
    in_group: bool,
    next: Next,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Next {
    #[default]
    Plain,
    /// A name, followed by secrets.
    Name,
    Secrets,
}

impl Places {
    /// Starts at the first word of a program.
    pub(super) fn of(program: &str) -> Self {
        let program = program.to_owned();
        Self {
            program,
            ..Self::default()
        }
    }

    /// Takes the next word that is not a flag. Returns whether it is a secret.
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

    /// Sets what a subcommand expects. Returns whether the word is such a subcommand.
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
