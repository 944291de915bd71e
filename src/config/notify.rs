//! `[notify.NAME]`: the receivers of notifications about new requests for approval.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use ipnet::IpNet;
use serde::Deserialize;
use toml::Spanned;

use crate::diag::Diagnostic;
use crate::name::{TargetError, Url};
use crate::policy::source::Placed;

use super::names::Names;
use super::tls::{PemFile, PemFiles};
use super::value;

/// The minimum and maximum time between two messages.
const EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));
/// The default time between two messages.
const DEFAULT_EVERY: Duration = Duration::from_mins(1);
/// The bytes of a signing key: fewer can be guessed (Standard Webhooks: 24 to 64).
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// The prefix of a signing key (Standard Webhooks).
const KEY_PREFIX: &str = "whsec_";
/// Bytes of `link`, at most.
const MAX_LINK: usize = 500;
/// The part of `link` that the id of a request replaces.
pub const REQUEST: &str = "{request}";

/// One receiver of notifications for reviewers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notifier {
    /// The name in records and messages.
    pub name: Arc<str>,
    /// How a message is delivered.
    pub delivery: Delivery,
    /// `tiers`: only requests of these tiers; empty: all requests.
    pub tiers: Vec<Arc<str>>,
    /// `link`: the URL of a page of the operator, with `{request}` for the id of a request.
    pub link: Option<Arc<str>>,
    /// `every`: the minimum time between two messages.
    pub every: Duration,
}

/// How a message is delivered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Delivery {
    /// By a POST request over https.
    Webhook(Webhook),
    /// `command`: on the standard input of a program, by its path and arguments.
    Command(Vec<String>),
    /// `notify-send`: on the desktop of the gate's user, by this program.
    Desktop(String),
}

/// A receiver of POST requests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Webhook {
    /// The URL of the receiver.
    pub url: WebhookUrl,
    /// The format of the body.
    pub format: WebhookFormat,
    /// `key-file`: the key that signs messages, read for each message.
    pub key_file: Option<PathBuf>,
    /// `addresses`: private addresses that its host may have.
    pub addresses: Vec<IpNet>,
    /// `roots`: the certificate authorities for its host; empty: the system's.
    pub roots: Vec<PemFile>,
}

/// The URL of a webhook.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WebhookUrl {
    /// `url`.
    Written(Url),
    /// `url-file`: the URL is a secret. Read for each message.
    File(PathBuf),
}

/// The body of a webhook.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WebhookFormat {
    /// The message as JSON.
    Json,
    /// The text of the message, as an incoming webhook of Slack expects it.
    Slack,
}

/// Why a URL or key of a webhook cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WebhookError {
    /// The file cannot be read.
    #[error("{0}")]
    File(String),
    /// The text is no URL.
    #[error("this is no URL: {0}")]
    Url(TargetError),
    /// The URL is not of a host by https.
    #[error("this is no https URL of a named host")]
    NotHttps,
    /// The text is no key.
    #[error("this is no signing key: `whsec_` and 24 to 64 bytes in base64")]
    Key,
}

impl Webhook {
    /// Returns the URL; reads `url-file` if the section has one.
    pub fn url(&self) -> Result<Url, WebhookError> {
        match &self.url {
            WebhookUrl::Written(url) => Ok(url.clone()),
            WebhookUrl::File(path) => parse_url(line(path)?.trim()),
        }
    }

    /// The files that are read for each message.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let url = match &self.url {
            WebhookUrl::Written(_) => None,
            WebhookUrl::File(path) => Some(path),
        };
        url.into_iter().chain(&self.key_file).map(PathBuf::as_path)
    }

    /// Reads the signing key; `None`: messages are not signed.
    pub fn key(&self) -> Result<Option<Vec<u8>>, WebhookError> {
        let path = self.key_file.as_ref();
        path.map(|path| parse_key(line(path)?.trim())).transpose()
    }
}

fn line(path: &Path) -> Result<String, WebhookError> {
    super::files::read_text(path).map_err(|why| WebhookError::File(why.to_string()))
}

fn parse_url(text: &str) -> Result<Url, WebhookError> {
    let url = Url::parse(text.as_bytes()).map_err(WebhookError::Url)?;
    if value::is_https(&url) {
        Ok(url)
    } else {
        Err(WebhookError::NotHttps)
    }
}

fn parse_key(text: &str) -> Result<Vec<u8>, WebhookError> {
    let bytes = text.strip_prefix(KEY_PREFIX);
    let bytes = bytes.and_then(|text| BASE64.decode(text.as_bytes()).ok());
    bytes
        .filter(|bytes| KEY_BYTES.contains(&bytes.len()))
        .ok_or(WebhookError::Key)
}

/// `[notify.NAME]` as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Section {
    url: Option<Spanned<String>>,
    url_file: Option<Spanned<String>>,
    key_file: Option<Spanned<String>>,
    format: Option<Spanned<String>>,
    #[serde(default)]
    addresses: Vec<Spanned<String>>,
    #[serde(default)]
    roots: Vec<Spanned<String>>,
    command: Option<Vec<Spanned<String>>>,
    notify_send: Option<Spanned<String>>,
    #[serde(default)]
    tiers: Vec<Spanned<String>>,
    link: Option<Spanned<String>>,
    every: Option<Spanned<String>>,
}

/// Reads the notifiers; `read` collects the files and their content.
pub(super) fn notifiers(
    sections: &[(Spanned<String>, Placed<Section>)],
    names: &Names<'_>,
    read: &mut Vec<(PathBuf, String)>,
    findings: &mut Vec<Diagnostic>,
) -> Vec<Notifier> {
    let read_one = |(name, section): &(Spanned<String>, Placed<Section>)| {
        let tiers = section.value.tiers.iter();
        let tiers = tiers.map(|tier| names.tier(section, tier, findings));
        let tiers = tiers.collect();
        let reader = Reader {
            section,
            files: PemFiles {
                around: section,
                read,
                findings,
            },
        };
        reader.notifier(name.get_ref(), tiers)
    };
    sections.iter().filter_map(read_one).collect()
}

struct Reader<'a> {
    section: &'a Placed<Section>,
    files: PemFiles<'a, Section>,
}

impl Reader<'_> {
    fn notifier(mut self, name: &str, tiers: Vec<Arc<str>>) -> Option<Notifier> {
        let section = self.section;
        let link = section.value.link.as_ref();
        let link = link.and_then(|link| self.link(link));
        let every = section.value.every.as_ref();
        let every = every.and_then(|text| {
            value::duration(text.get_ref(), EVERY, section.at(text), self.files.findings)
        });
        Some(Notifier {
            name: name.into(),
            delivery: self.delivery()?,
            tiers,
            link,
            every: every.unwrap_or(DEFAULT_EVERY),
        })
    }

    fn say(&mut self, at: &Spanned<String>, message: String, help: &str) {
        let finding = Diagnostic::error("bad-notify", self.section.at(at), message);
        self.files.findings.push(finding.help(help));
    }

    fn delivery(&mut self) -> Option<Delivery> {
        let written = &self.section.value;
        let command = written.command.as_deref().and_then(<[_]>::first);
        let (url, file) = (written.url.as_ref(), written.url_file.as_ref());
        let ways = [url, file, command, written.notify_send.as_ref()];
        let mut ways = ways.into_iter().flatten();
        let (Some(_), None) = (ways.next(), ways.next()) else {
            let message = "a notifier has one of `url`, `url-file`, `command` and `notify-send`";
            let place = self.section.place();
            let finding = Diagnostic::error("bad-notify", place, message);
            let help = "write one table for each: `[notify.chat]`, `[notify.desk]`";
            self.files.findings.push(finding.help(help));
            return None;
        };
        if let Some(command) = command {
            let words = written.command.iter().flatten();
            let words = words.map(|word| word.get_ref().clone()).collect();
            return self.program(command).then_some(Delivery::Command(words));
        }
        if let Some(program) = &written.notify_send {
            let path = program.get_ref().clone();
            return self.program(program).then_some(Delivery::Desktop(path));
        }
        self.webhook().map(Delivery::Webhook)
    }

    /// Whether a program has an absolute path, and the section has no key of a webhook.
    fn program(&mut self, program: &Spanned<String>) -> bool {
        let written = &self.section.value;
        let lists = [written.addresses.first(), written.roots.first()];
        let keys = [written.key_file.as_ref(), written.format.as_ref()];
        if let Some(unused) = keys.into_iter().chain(lists).flatten().next() {
            let message = "`key-file`, `format`, `addresses` and `roots` are for a webhook alone";
            let help = "leave them out, or write `url`";
            self.say(unused, message.to_owned(), help);
        }
        let is_absolute = program.get_ref().starts_with('/');
        if !is_absolute {
            let message = format!("`{}` is no absolute path of a program", program.get_ref());
            let help = "write e.g. `command = [\"/usr/local/bin/notify\"]`";
            self.say(program, message, help);
        }
        is_absolute
    }

    fn webhook(&mut self) -> Option<Webhook> {
        let section = self.section;
        let written = &section.value;
        let formats = [
            ("json", WebhookFormat::Json),
            ("slack", WebhookFormat::Slack),
        ];
        let format = match &written.format {
            Some(word) => self.files.word(word, &formats)?,
            None => WebhookFormat::Json,
        };
        let url = match (&written.url, &written.url_file) {
            (Some(url), _) => WebhookUrl::Written(self.url(url)?),
            (None, Some(file)) => WebhookUrl::File(self.url_file(file)?),
            (None, None) => return None,
        };
        let key_file = written.key_file.as_ref();
        let key_file = key_file.map(|file| self.key_file(file));
        if key_file.is_none() && format == WebhookFormat::Json {
            let message = "a webhook with JSON needs `key-file`: without a signature its receiver \
                           cannot know the sender";
            let finding = Diagnostic::error("bad-notify", section.place(), message);
            let help = "make a key: `printf 'whsec_%s\\n' \"$(openssl rand -base64 32)\" >notify.key; \
                        chmod 600 notify.key`";
            self.files.findings.push(finding.help(help));
            return None;
        }
        let addresses = value::networks(section, &written.addresses, self.files.findings);
        let roots = written.roots.iter();
        let roots = roots.filter_map(|name| self.files.pem(name)).collect();
        Some(Webhook {
            url,
            format,
            key_file: key_file.flatten(),
            addresses,
            roots,
        })
    }

    fn url(&mut self, written: &Spanned<String>) -> Option<Url> {
        let parsed = parse_url(written.get_ref());
        if parsed.is_err() {
            // The path of a URL may be a secret: the message does not repeat it.
            let message = "`url` is no https URL of a named host".to_owned();
            let help = "write e.g. `https://hooks.acme.example/tidegate`";
            self.say(written, message, help);
        }
        parsed.ok()
    }

    fn url_file(&mut self, name: &Spanned<String>) -> Option<PathBuf> {
        let read = |text: &str| parse_url(text).map(drop);
        let help = "write the https URL into the file, in one line";
        self.secret(name, "URL", help, read)
    }

    fn key_file(&mut self, name: &Spanned<String>) -> Option<PathBuf> {
        let read = |text: &str| parse_key(text).map(drop);
        let help = "make one: `printf 'whsec_%s\\n' \"$(openssl rand -base64 32)\" >notify.key`";
        self.secret(name, "key", help, read)
    }

    /// Checks a file with a secret that only its owner may read. Its content is kept out of the
    /// digest of the configuration.
    fn secret(
        &mut self,
        name: &Spanned<String>,
        what: &str,
        help: &str,
        check: impl FnOnce(&str) -> Result<(), WebhookError>,
    ) -> Option<PathBuf> {
        let path = self.files.path(name);
        match super::files::read_text(&path) {
            Ok(text) => {
                if let Err(why) = check(text.trim()) {
                    self.say(name, format!("{}: {why}", path.display()), help);
                    return None;
                }
            }
            Err(why) => {
                let (code, message) = (why.code(), why.to_string());
                let finding = Diagnostic::error(code, self.section.at(name), message);
                self.files.findings.push(finding.help(help));
                return None;
            }
        }
        self.files.keep_private(&path, name, what);
        Some(path)
    }

    fn link(&mut self, written: &Spanned<String>) -> Option<Arc<str>> {
        let text = written.get_ref();
        let sample = text.replace(REQUEST, "0199c1f0-0000-7000-8000-000000000000");
        let is_url = Url::parse(sample.as_bytes()).is_ok() && text.len() <= MAX_LINK;
        let plain = text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"<>|\"".contains(&byte));
        if is_url && plain && text.contains(REQUEST) {
            return Some(text.as_str().into());
        }
        let message = "`link` is no URL with `{request}` for the id of a request".to_owned();
        let help = "write e.g. `https://ops.acme.example/tidegate/{request}`";
        self.say(written, message, help);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_prefix_and_24_to_64_bytes() {
        let key = |bytes: usize| format!("whsec_{}", BASE64.encode(&vec![7; bytes]));
        assert_eq!(parse_key(&key(32)), Ok(vec![7; 32]));
        for text in [key(23), key(65), BASE64.encode(&[7; 32]), "whsec_?".into()] {
            assert_eq!(parse_key(&text), Err(WebhookError::Key), "{text}");
        }
    }

    #[test]
    fn a_webhook_is_a_named_host_by_https() {
        assert!(parse_url("https://hooks.example.net/a").is_ok());
        for text in [
            "http://hooks.example.net/a",
            "https://192.0.2.7/a",
            "https://user:word@hooks.example.net/a",
            "file:///etc/passwd",
            "",
        ] {
            assert!(parse_url(text).is_err(), "{text}");
        }
    }
}
