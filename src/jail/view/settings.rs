//! Files of the home that the command gets a copy of: certificates that variables name, and tool
//! settings without credentials.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Content, Planning};

/// Maximum size of a copied file, in bytes.
pub(super) const MAX_COPY: u64 = 4 << 20;
/// Variables that name certificate files.
const CERTIFICATES: [&str; 14] = [
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "CURL_CA_BUNDLE",
    "DENO_CERT",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NIX_SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "NPM_CONFIG_CAFILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "UV_SYSTEM_CERTS_FILE",
    "npm_config_cafile",
];
/// Settings of tools, relative to the home.
const SETTINGS: [&str; 11] = [
    ".bunfig.toml",
    ".cargo/config.toml",
    ".config/git/attributes",
    ".config/git/config",
    ".config/git/ignore",
    ".config/pip/pip.conf",
    ".gitconfig",
    ".gitignore",
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
];
/// Words that mark a line with credentials.
const CREDENTIALS: [&str; 11] = [
    "_auth",
    "apikey",
    "api_key",
    "authorization",
    "extraheader",
    "authident",
    "pass",
    "private key",
    "pwd",
    "secret",
    "token",
];

pub(super) fn add(plan: &mut Planning, home: Option<&Path>) {
    let named = CERTIFICATES.iter().filter_map(std::env::var_os);
    // Most of the variables name the same file.
    let files: BTreeSet<_> = named.map(|file| plan.view.directory.join(file)).collect();
    for file in files.iter().filter(|file| file.is_file()) {
        plan.copy(file, Content::Certificates);
    }
    let Some(home) = home else { return };
    for name in SETTINGS {
        let file = home.join(name);
        if file.is_file() {
            plan.copy(&file, Content::Settings);
        }
    }
}

/// Whether a text has certificates and no key.
pub(super) fn is_certificates(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.contains("-----BEGIN CERTIFICATE-----") && !text.contains("PRIVATE KEY")
}

/// Whether a settings text has no line that looks like a credential.
pub(super) fn is_without_credentials(text: &[u8]) -> bool {
    credential(text).is_none()
}

/// Returns the number of the first settings line that looks like a credential: the line has one of
/// the words, or a user name before a host, with or without a scheme. A mail address does not
/// count.
pub(super) fn credential(text: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(text).to_lowercase();
    let after = |line: &str| {
        let after = line.split("://").skip(1);
        after
            .filter_map(|rest| rest.split(['/', '"', '\'', ' ']).next())
            .any(|authority| authority.contains('@'))
    };
    // `user:password@host`.
    let bare = |line: &str| {
        let before = line.split('@').rev().skip(1);
        before
            .filter_map(|it| it.rsplit([' ', '\t', '=', '"', '\'', ',']).next())
            .any(|user| user.contains(':') && !user.starts_with("git:"))
    };
    let looks = |line: &str| {
        CREDENTIALS.iter().any(|word| line.contains(word)) || after(line) || bare(line)
    };
    text.lines().position(looks).map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_with_credentials_are_told_from_others() {
        for text in [
            "[user]\n\tname = Ana\n\temail = ana@acme.example\n[credential]\n\thelper = store\n",
            "registry=https://npm.example.com/\n",
            "",
        ] {
            assert!(is_without_credentials(text.as_bytes()), "{text}");
        }
        for text in [
            "//npm.example.com/:_authToken=abc\n",
            "[url \"https://ana:abc@forge.example/\"]\n",
            "[http]\n\textraHeader = Authorization: Basic abc\n",
            "index-url = https://abc@pypi.example.com/simple\n",
            "npmAuthToken: abc\n",
            "npmAuthIdent: \"ana:abc\"\n",
            "[sendemail]\n\tsmtpPass = abc\n",
            "[imap]\n\tpass = abc\n",
            "[global]\nproxy = ana:abc@proxy.example:3128\n",
        ] {
            assert!(!is_without_credentials(text.as_bytes()), "{text}");
        }
        assert!(!is_certificates(b"-----BEGIN PRIVATE KEY-----"));
        assert!(is_certificates(b"-----BEGIN CERTIFICATE-----\n"));
    }
}
