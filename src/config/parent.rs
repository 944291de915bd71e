//! `parent` of `[dial]`: the parent proxies that the gate uses to reach targets.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use toml::Spanned;

use crate::diag::Diagnostic;
use crate::name::{Target, Url};
use crate::policy::source::Placed;
use crate::policy::{Category, HostList};

use super::tls::{PemFile, PemFiles};
use super::value;

/// The key in `[dial]`.
pub(super) const KEY: &str = "parent";
/// The name of the section.
pub(super) const WHAT: &str = "[[dial.parent]]";

/// A parent proxy that the gate uses to reach targets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parent {
    /// The host and port of the parent.
    pub target: Target,
    /// Whether the connection to the parent uses TLS (`https://`).
    pub tls: bool,
    /// `roots`: the certificate authorities for the parent's host; empty: the system's.
    pub roots: Vec<PemFile>,
    /// `client-cert` and `client-key`: the gate's client certificate for the parent.
    pub client: Option<(PemFile, PemFile)>,
    /// `credential-file` or `credential-command`: the source of `Proxy-Authorization`.
    pub credential: Option<Credential>,
    /// `categories`: the categories that use the parent; empty: every category.
    pub categories: Vec<Category>,
    /// `hosts`: the hosts that use the parent; empty: every host.
    pub hosts: HostList,
    /// `except`: the hosts that do not use the parent.
    pub except: HostList,
    /// `resolve`: which side resolves names.
    pub resolve: Resolve,
    /// `fall-back`: the action if no parent can be reached.
    pub fall_back: FallBack,
}

impl Parent {
    /// Whether the parent is configured for that target and category.
    pub fn is_for(&self, target: &Target, category: Category) -> bool {
        (self.categories.is_empty() || self.categories.contains(&category))
            && (self.hosts.is_empty() || self.hosts.contains(&target.host))
            && !self.except.contains(&target.host)
    }
}

/// Which side resolves the names of targets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Resolve {
    /// The gate: every answer is judged, and the tunnel leads to a judged address.
    Local,
    /// The parent: the gate neither sees nor judges the addresses of a name.
    #[default]
    Parent,
}

/// The action if no parent can be reached.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum FallBack {
    /// Dial the target directly.
    Direct,
    /// Refuse the flow.
    #[default]
    Refuse,
}

/// The source of a credential.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Credential {
    /// A file.
    File {
        /// The path, read again when the parent rejects the credential.
        path: PathBuf,
        /// The content of the file.
        said: Authorization,
    },
    /// The standard output of a command.
    Command {
        /// The program and its arguments; never through a shell.
        words: Vec<String>,
        /// How long the output is valid.
        lifetime: Duration,
    },
}

/// A value of `Proxy-Authorization`; never shown.
#[derive(Clone, Eq, PartialEq)]
pub struct Authorization(Arc<str>);

impl Authorization {
    /// Returns the value of the header field.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses `user:password`, `Basic …` or `Bearer …`. The error never quotes the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.is_empty() {
            return Err("there is nothing in it");
        }
        if text.len() > 8 * 1024 || text.chars().any(char::is_control) {
            return Err("it is not one line of at most 8 KiB");
        }
        let value = match text.split_once(' ') {
            Some((scheme, rest)) if is_scheme(scheme) => {
                let token = rest.trim_start();
                if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err("behind the scheme stands something else than one token");
                }
                format!("{scheme} {token}")
            }
            _ if text.contains(':') => format!("Basic {}", STANDARD.encode(text)),
            _ => return Err("it is neither `user:password` nor `Basic …` nor `Bearer …`"),
        };
        Ok(Self(value.into()))
    }
}

fn is_scheme(word: &str) -> bool {
    ["basic", "bearer"]
        .iter()
        .any(|scheme| word.eq_ignore_ascii_case(scheme))
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization")
    }
}

/// The text of the table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Section {
    url: Spanned<String>,
    #[serde(default)]
    roots: Vec<Spanned<String>>,
    client_cert: Option<Spanned<String>>,
    client_key: Option<Spanned<String>>,
    credential_file: Option<Spanned<String>>,
    credential_command: Option<Spanned<Vec<Spanned<String>>>>,
    credential_lifetime: Option<Spanned<String>>,
    #[serde(default)]
    categories: Vec<Spanned<String>>,
    #[serde(default)]
    hosts: Vec<Spanned<String>>,
    #[serde(default)]
    except: Vec<Spanned<String>>,
    resolve: Option<Spanned<String>>,
    fall_back: Option<Spanned<String>>,
}

/// The words of `resolve`.
pub(super) const RESOLVE: [(&str, Resolve); 2] =
    [("local", Resolve::Local), ("parent", Resolve::Parent)];
/// The words of `fall-back`.
pub(super) const FALL_BACK: [(&str, FallBack); 2] =
    [("direct", FallBack::Direct), ("refuse", FallBack::Refuse)];
/// How long the output of a command is valid.
const LIFETIME: Duration = Duration::from_mins(5);
const LIFETIMES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(24));

/// Reads the parents; `read` collects the files and their content.
pub(super) fn parents(
    sections: &[Placed<Section>],
    read: &mut Vec<(PathBuf, String)>,
    findings: &mut Vec<Diagnostic>,
) -> Vec<Parent> {
    let mut parents: Vec<Parent> = Vec::new();
    for section in sections {
        let reader = Reader {
            section,
            read,
            findings,
        };
        let Some(parent) = reader.parent() else {
            continue;
        };
        if parents.contains(&parent) {
            let place = section.at(&section.value.url);
            let finding = Diagnostic::error("parent-twice", place, "this parent is written twice");
            findings.push(finding.help("keep one of them, with all that it is for"));
        } else {
            parents.push(parent);
        }
    }
    parents
}

struct Reader<'a> {
    section: &'a Placed<Section>,
    read: &'a mut Vec<(PathBuf, String)>,
    findings: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    fn parent(mut self) -> Option<Parent> {
        let url = self.url();
        let before = self.findings.len();
        let (roots, client) = (self.roots(), self.client());
        let credential = self.credential();
        let categories = self.categories();
        let hosts = self.hosts(&self.section.value.hosts);
        let except = self.hosts(&self.section.value.except);
        let resolve = self.word(self.section.value.resolve.as_ref(), &RESOLVE);
        let fall_back = self.word(self.section.value.fall_back.as_ref(), &FALL_BACK);
        let url = url?;
        self.nothing_unused(url.tls);
        (self.findings.len() == before).then_some(Parent {
            target: url.target,
            tls: url.tls,
            roots,
            client,
            credential,
            categories,
            hosts,
            except,
            resolve,
            fall_back,
        })
    }

    fn say<T>(&mut self, code: &'static str, at: &Spanned<T>, message: &str, help: &str) {
        let finding = Diagnostic::error(code, self.section.at(at), message.to_owned());
        self.findings.push(finding.help(help.to_owned()));
    }

    fn url(&mut self) -> Option<Url> {
        let written = &self.section.value.url;
        let text = written.get_ref();
        if text.contains('@') {
            let help = "put it into a file of its own and name that as `credential-file`";
            let message = "the URL of a parent has no credential in it";
            self.say("credential-in-url", written, message, help);
            return None;
        }
        let help = "write `http://HOST:PORT` or `https://HOST:PORT`";
        match Url::parse(text.as_bytes()) {
            Ok(url) if url.path.as_str() == "/" => Some(url),
            Ok(_) => {
                self.say("bad-url", written, "a parent has no path", help);
                None
            }
            Err(error) => {
                let message = format!("this is no URL of a proxy: {error}");
                self.say("bad-url", written, &message, help);
                None
            }
        }
    }

    fn files(&mut self) -> PemFiles<'_, Section> {
        PemFiles {
            around: self.section,
            read: self.read,
            findings: self.findings,
        }
    }

    fn roots(&mut self) -> Vec<PemFile> {
        let written = self.section.value.roots.iter();
        let mut files = self.files();
        written.filter_map(|name| files.pem(name)).collect()
    }

    fn client(&mut self) -> Option<(PemFile, PemFile)> {
        let written = &self.section.value;
        let (cert, key) = match (&written.client_cert, &written.client_key) {
            (Some(cert), Some(key)) => (cert, key),
            (None, None) => return None,
            (Some(alone), None) | (None, Some(alone)) => {
                let message = "a `client-cert` and its `client-key` go together";
                let help = "name both, or neither";
                self.say("missing-key", alone, message, help);
                return None;
            }
        };
        let mut files = self.files();
        let (cert, pem) = (files.pem(cert), files.pem(key));
        if let Some(pem) = &pem {
            files.keep_secret(&pem.path, key);
        }
        Some((cert?, pem?))
    }

    /// Reports keys that have no effect without TLS or without a command.
    fn nothing_unused(&mut self, tls: bool) {
        let written = &self.section.value;
        let (root, cert) = (written.roots.first(), written.client_cert.as_ref());
        for (key, value) in [("roots", root), ("client-cert", cert)] {
            if let Some(value) = value.filter(|_| !tls) {
                let message = format!("`{key}` means nothing: no TLS is spoken with this parent");
                self.say(
                    "unused-key",
                    value,
                    &message,
                    "write an `https://` URL, or leave it out",
                );
            }
        }
        if let Some(value) = &written.credential_lifetime
            && written.credential_command.is_none()
        {
            let message = "`credential-lifetime` is about a `credential-command`";
            self.say(
                "unused-key",
                value,
                message,
                "leave it out: a file is followed",
            );
        }
    }

    fn credential(&mut self) -> Option<Credential> {
        let written = &self.section.value;
        match (&written.credential_file, &written.credential_command) {
            (None, None) => None,
            (Some(file), None) => self.credential_file(file),
            (None, Some(command)) => self.credential_command(command),
            (Some(_), Some(command)) => {
                let message =
                    "a parent has a `credential-file` or a `credential-command`, not both";
                self.say("credential-twice", command, message, "keep one of them");
                None
            }
        }
    }

    fn credential_file(&mut self, name: &Spanned<String>) -> Option<Credential> {
        const HELP: &str =
            "write `user:password`, `Basic …` or `Bearer …` into a file, and its path here";
        let path = super::folder_of(&self.section.source.path).join(name.get_ref());
        if name.get_ref().contains(':') && !path.exists() {
            let message = "`credential-file` is the path of a file, not what is in it";
            self.say("no-such-file", name, message, HELP);
            return None;
        }
        let mut files = self.files();
        let file = files.pem(name)?;
        files.keep_private(&file.path, name, "credential");
        match Authorization::parse(&file.text) {
            Ok(said) => Some(Credential::File {
                path: file.path,
                said,
            }),
            Err(why) => {
                let message = format!("this is no credential: {why}");
                self.say("bad-credential", name, &message, HELP);
                None
            }
        }
    }

    fn credential_command(
        &mut self,
        command: &Spanned<Vec<Spanned<String>>>,
    ) -> Option<Credential> {
        let words: Vec<String> = command
            .get_ref()
            .iter()
            .map(|word| word.get_ref().clone())
            .collect();
        let Some(program) = words.first().filter(|program| !program.is_empty()) else {
            let message = "`credential-command` names no program";
            let help = "write e.g. `credential-command = [\"/usr/local/bin/proxy-token\"]`";
            self.say("empty", command, message, help);
            return None;
        };
        if !Path::new(program).is_absolute() {
            let folder = super::folder_of(&self.section.source.path);
            let help = format!("write `credential-command = {}`", absolute(&words, folder));
            let message = format!(
                "`{}` is no absolute path of a program",
                value::shortened(program)
            );
            self.say("relative-program", command, &message, &help);
            return None;
        }
        let written = self.section.value.credential_lifetime.as_ref();
        let lifetime = written.and_then(|written| {
            let place = self.section.at(written);
            value::duration(written.get_ref(), LIFETIMES, place, self.findings)
        });
        Some(Credential::Command {
            words,
            lifetime: lifetime.unwrap_or(LIFETIME),
        })
    }

    fn categories(&mut self) -> Vec<Category> {
        let words = Category::ALL.map(|category| (category.as_str(), category));
        let written = self.section.value.categories.iter();
        written
            .filter_map(|word| {
                value::word(word.get_ref(), &words, self.section.at(word), self.findings)
            })
            .collect()
    }

    fn hosts(&mut self, written: &[Spanned<String>]) -> HostList {
        let mut hosts = HostList::default();
        for entry in written {
            if let Err(bad) = hosts.add(entry.get_ref()) {
                let message = format!("`{}` is no host", value::shortened(entry.get_ref()));
                let finding = Diagnostic::error("bad-host", self.section.at(entry), message);
                self.findings.push(finding.label(bad.label).help(bad.help));
            }
        }
        hosts
    }

    fn word<W: Copy + Default>(
        &mut self,
        word: Option<&Spanned<String>>,
        words: &[(&str, W)],
    ) -> W {
        word.and_then(|word| {
            value::word(word.get_ref(), words, self.section.at(word), self.findings)
        })
        .unwrap_or_default()
    }
}

/// Returns the words of a command with the absolute path of its program, as TOML.
fn absolute(words: &[String], folder: &Path) -> String {
    let name = words.first().map_or("", String::as_str);
    let at = if name.contains('/') {
        std::path::absolute(folder.join(name)).unwrap_or_else(|_| folder.join(name))
    } else {
        let folders = ["/usr/local/bin", "/usr/bin", "/bin"].map(Path::new);
        let mut found = folders.iter().map(|folder| folder.join(name));
        let usual = Path::new("/usr/local/bin").join(name);
        found.find(|at| at.is_file()).unwrap_or(usual)
    };
    let at = at.to_string_lossy().into_owned();
    let words = std::iter::once(&at).chain(words.iter().skip(1));
    let words: Vec<String> = words.map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_a_user_with_a_password_or_stands_as_it_is() {
        let read = |text: &str| Authorization::parse(text).map(|it| it.as_str().to_owned());
        assert_eq!(read("ana:pa ss\n").unwrap(), "Basic YW5hOnBhIHNz");
        assert_eq!(read("bearer abc.def==\n").unwrap(), "bearer abc.def==");
        assert_eq!(read("Basic  YTpi").unwrap(), "Basic YTpi");
        for wrong in [
            "",
            "\n",
            "token",
            "Bearer ",
            "Bearer a b",
            "a:b\r\nX: y",
            "Bearer \u{e9}",
        ] {
            let why = read(wrong).unwrap_err();
            assert!(!why.contains("token\n") && !why.is_empty(), "{wrong:?}");
        }
        assert_eq!(
            format!("{:?}", Authorization::parse("a:b").unwrap()),
            "Authorization"
        );
    }
}
