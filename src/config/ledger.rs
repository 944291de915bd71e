//! `[ledger]` and `[exceptions]`: decisions of people while the gate runs, and their duration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio_postgres::config::Host as Written;
use toml::Spanned;

use crate::diag::Diagnostic;
use crate::name::Host;
use crate::policy::source::{self, Placed};

use super::tls::{PemFile, PemFiles};
use super::value;

/// The port of `PostgreSQL`.
const PORT: u16 = 5432;

/// The ledger.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ledger {
    /// Where it is.
    pub store: LedgerStore,
    /// How long the gate uses its last state while the ledger does not answer (`stale-after`,
    /// default 1 h). After that, all grants count as ended.
    pub stale_after: Duration,
}

/// Where a ledger is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LedgerStore {
    /// In a file of `SQLite` (`file`, default `ledger.db` beside the records).
    File(PathBuf),
    /// In a database of `PostgreSQL` (`url`).
    Database(Database),
}

/// A database of `PostgreSQL`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Database {
    /// The role.
    pub user: String,
    /// The name of the database.
    pub name: String,
    /// The server.
    pub server: DatabaseServer,
    /// Its port.
    pub port: u16,
    /// `password-file`: read at each connection, so that a password can be changed.
    pub password_file: Option<PathBuf>,
    /// `roots`: the certificate authorities for its host; none: the system's.
    pub roots: Vec<PemFile>,
}

/// The server of a database.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DatabaseServer {
    /// A Unix socket, by its folder.
    Socket(PathBuf),
    /// A host, by TLS.
    Host(Host),
}

impl Database {
    /// The password, without the line end; `None`: there is no file. `Err` says why it cannot be read.
    pub fn password(&self) -> Option<Result<String, String>> {
        let path = self.password_file.as_ref()?;
        let text = super::files::read_text(path);
        Some(
            text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                .map_err(|error| error.to_string()),
        )
    }
}

/// `[ledger]` as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Section {
    file: Option<Spanned<String>>,
    url: Option<Spanned<String>>,
    password_file: Option<Spanned<String>>,
    #[serde(default)]
    roots: Vec<Spanned<String>>,
    stale_after: Option<Spanned<String>>,
}

/// `[exceptions]` as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ExceptionsSection {
    longest: Option<Spanned<String>>,
}

/// The name of the default file beside the records.
const FILE: &str = "ledger.db";
const HOUR: Duration = Duration::from_hours(1);
const STALE_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(168));
const MAX_EXCEPTION: (Duration, Duration) =
    (Duration::from_mins(1), Duration::from_hours(24 * 3650));
/// Default maximum duration of an exception.
pub(super) const DEFAULT_MAX_EXCEPTION: Duration = Duration::from_hours(24 * 90);

/// The ledger that is written; `record` is the file of the records. `read` learns the files.
pub(super) fn ledger(
    section: Option<&Placed<Section>>,
    record: Option<&Path>,
    read: &mut Vec<(PathBuf, String)>,
    findings: &mut Vec<Diagnostic>,
) -> Option<Ledger> {
    let section = section?;
    let written = &section.value;
    let store = match &written.url {
        Some(url) => database(section, url, read, findings).map(LedgerStore::Database),
        None => file(section, record, findings).map(LedgerStore::File),
    };
    let unused = match (&written.url, &written.file) {
        (Some(_), Some(file)) => Some((file, "`file` means nothing beside `url`")),
        (None, _) => written
            .password_file
            .as_ref()
            .or(written.roots.first())
            .map(|key| {
                (
                    key,
                    "`password-file` and `roots` mean nothing without `url`",
                )
            }),
        (Some(_), None) => None,
    };
    if let Some((key, message)) = unused {
        findings.push(
            Diagnostic::error("unused-key", section.at(key), message)
                .help("a ledger is in a file, or in the database of a `url`"),
        );
    }
    let stale_after = written.stale_after.as_ref().map_or(Some(HOUR), |text| {
        value::duration(text.get_ref(), STALE_AFTER, section.at(text), findings)
    });
    Some(Ledger {
        store: store?,
        stale_after: stale_after.unwrap_or(HOUR),
    })
}

fn file(
    section: &Placed<Section>,
    record: Option<&Path>,
    findings: &mut Vec<Diagnostic>,
) -> Option<PathBuf> {
    let file = match &section.value.file {
        Some(file) if !file.get_ref().is_empty() => {
            Some(super::folder_of(&section.source.path).join(file.get_ref()))
        }
        Some(_) => None,
        None => record.map(|record| record.with_file_name(FILE)),
    };
    if file.is_none() {
        let message = "the ledger has no file";
        findings.push(
            Diagnostic::error("no-ledger-file", section.place(), message)
                .help("write `file`, the path of a file that agents cannot write"),
        );
    }
    file
}

fn database(
    section: &Placed<Section>,
    url: &Spanned<String>,
    read: &mut Vec<(PathBuf, String)>,
    findings: &mut Vec<Diagnostic>,
) -> Option<Database> {
    let mut parsed = match Database::parse(url.get_ref()) {
        Ok(parsed) => parsed,
        Err(error) => {
            let (code, message) = (error.code(), error.to_string());
            let finding = Diagnostic::error(code, section.at(url), message);
            findings.push(finding.help(error.help()));
            return None;
        }
    };
    let mut files = PemFiles {
        around: section,
        read,
        findings,
    };
    let roots = section.value.roots.iter();
    parsed.roots = roots.filter_map(|name| files.pem(name)).collect();
    if let Some(name) = &section.value.password_file {
        let path = files.path(name);
        // What it says is kept out of the digest of the configuration.
        match super::files::read_text(&path) {
            Ok(_) => files.keep_private(&path, name, "password"),
            Err(why) => {
                let (code, message) = (why.code(), why.to_string());
                let finding = Diagnostic::error(code, section.at(name), message);
                findings.push(finding.help("name a file that has the password in one line"));
            }
        }
        parsed.password_file = Some(path);
    }
    Some(parsed)
}

/// Why a text is no URL of a database.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
enum UrlError {
    #[error("the URL of the ledger has a password in it")]
    Password,
    #[error("this is no URL of a database: {0}")]
    Malformed(String),
}

impl UrlError {
    fn code(&self) -> &'static str {
        match self {
            Self::Password => "credential-in-url",
            Self::Malformed(_) => "bad-url",
        }
    }

    fn help(&self) -> &'static str {
        match self {
            Self::Password => "put it into a file of its own and name that as `password-file`",
            Self::Malformed(_) => {
                "write `postgres://ROLE@HOST:PORT/DATABASE`, or \
                 `postgres://ROLE@/DATABASE?host=/FOLDER` for a Unix socket"
            }
        }
    }
}

impl Database {
    /// Reads `postgres://ROLE@HOST:PORT/DATABASE` or `postgres://ROLE@/DATABASE?host=/FOLDER`.
    fn parse(text: &str) -> Result<Self, UrlError> {
        let malformed = |why: &str| UrlError::Malformed(why.to_owned());
        let mut schemes = ["postgres://", "postgresql://"].iter();
        let rest = schemes.find_map(|scheme| text.strip_prefix(scheme));
        let rest = rest.ok_or_else(|| malformed("it does not begin with `postgres://`"))?;
        if has_password(text) {
            return Err(UrlError::Password);
        }
        let query = rest.split_once('?').map(|(_, query)| query);
        let mut keys = query.into_iter().flat_map(|query| query.split('&'));
        if keys.any(|key| !key.starts_with("host=/") && !key.starts_with("port=")) {
            let why = "after `?` only `host=/FOLDER` and its `port=` have a meaning";
            return Err(malformed(why));
        }
        let config: tokio_postgres::Config = text
            .parse()
            .map_err(|error: tokio_postgres::Error| malformed(&error.to_string()))?;
        let (server, port) = match (config.get_hosts(), config.get_ports()) {
            ([host], ports) => (host, ports.first().copied().unwrap_or(PORT)),
            _ => return Err(malformed("it names no host, or several")),
        };
        let server = match server {
            Written::Tcp(host) => {
                let host = match host.parse() {
                    Ok(address) => Ok(Host::Address(address)),
                    Err(_) => Host::parse(host.as_bytes()),
                };
                DatabaseServer::Host(host.map_err(|error| malformed(&error.to_string()))?)
            }
            Written::Unix(folder) => DatabaseServer::Socket(folder.clone()),
        };
        let missing = |what: &str| malformed(&format!("it names no {what}"));
        Ok(Self {
            user: config.get_user().ok_or_else(|| missing("role"))?.to_owned(),
            name: config
                .get_dbname()
                .ok_or_else(|| missing("database"))?
                .to_owned(),
            server,
            port,
            password_file: None,
            roots: Vec::new(),
        })
    }
}

/// Whether a URL may have a password in it.
pub(super) fn has_password(url: &str) -> bool {
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    user.contains(':') || url.contains("password")
}

/// Reads the maximum duration of an exception.
pub(super) fn max_exception(
    section: Option<&Placed<ExceptionsSection>>,
    findings: &mut Vec<Diagnostic>,
) -> Duration {
    let written = section.and_then(|section| Some((section, section.value.longest.as_ref()?)));
    let max = written.and_then(|(section, text)| {
        value::duration(text.get_ref(), MAX_EXCEPTION, section.at(text), findings)
    });
    max.unwrap_or(DEFAULT_MAX_EXCEPTION)
}

/// Formats a duration for a message: `90 days`, `8h`.
pub(crate) fn time_in_words(time: SignedDuration) -> String {
    let days = time.as_hours() / 24;
    if days >= 2 && time == SignedDuration::from_hours(24 * days) {
        return format!("{days} days");
    }
    format!("{time:#}")
}

/// Finds exceptions that last too long, have ended, or have a limit without a ledger.
pub(super) fn check_exceptions(
    exceptions: &[Placed<source::Exception>],
    max: Duration,
    has_ledger: bool,
    now: Timestamp,
    findings: &mut Vec<Diagnostic>,
) {
    let max = SignedDuration::try_from(max).unwrap_or(SignedDuration::MAX);
    let last = now.saturating_add(max).unwrap_or(Timestamp::MAX);
    for written in exceptions {
        let exception = &written.value;
        let id = exception.id.get_ref();
        let place = written.at(&exception.expires);
        // Invalid times are found when exceptions are compiled.
        let expires = exception.expires.get_ref().to_string().parse::<Timestamp>();
        if expires.as_ref().is_ok_and(|end| *end > last) {
            let message = format!("exception `{id}` lasts too long");
            findings.push(
                Diagnostic::error("lasts-too-long", place, message)
                    .label(format!("more than {} from now", time_in_words(max)))
                    .help("end it earlier, or write a rule; the bound is `[exceptions] longest`"),
            );
        } else if expires.is_ok_and(|end| end <= now) {
            let message = format!("exception `{id}` has ended");
            findings.push(
                Diagnostic::warning("exception-ended", place, message)
                    .label("it lets nothing pass any more")
                    .help("take it out; `tidegate exceptions --retest` shows what decides now"),
            );
        }
        let limit = &exception.limit;
        let bound = limit.bytes_out.as_ref().map(|it| written.at(it));
        let bound = bound.or(limit.requests.as_ref().map(|it| written.at(it)));
        if let (Some(place), false) = (bound, has_ledger) {
            let message = format!("the limit of exception `{id}` needs a ledger");
            findings.push(
                Diagnostic::error("limit-without-ledger", place, message)
                    .label("a restart would forget what was spent")
                    .help("write `[ledger]`: what is spent is then kept in `ledger.db` beside the records"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_database_names_role_host_and_database_and_no_password() {
        let parsed = Database::parse("postgres://gate@db.example.net/fleet").expect("a URL");
        assert_eq!(
            (&*parsed.user, &*parsed.name, parsed.port),
            ("gate", "fleet", 5432)
        );
        let host = Host::parse(b"db.example.net").expect("a host");
        assert_eq!(parsed.server, DatabaseServer::Host(host));
        let socket = Database::parse("postgresql://gate@/fleet?host=/run/postgresql");
        let folder = PathBuf::from("/run/postgresql");
        assert_eq!(
            socket.expect("a URL").server,
            DatabaseServer::Socket(folder)
        );
        let six = Database::parse("postgres://gate@[::1]:5433/fleet").expect("a URL");
        assert_eq!(six.port, 5433);

        for text in [
            "postgres://gate:word@db.example.net/fleet",
            "postgres://gate@db.example.net/fleet?password=word",
            "postgres://gate:p@ss@db.example.net/fleet",
        ] {
            assert_eq!(Database::parse(text), Err(UrlError::Password), "{text}");
        }
        for text in [
            "",
            "mysql://gate@db.example.net/fleet",
            "postgres://db.example.net/fleet",
            "postgres://gate@db.example.net",
            "postgres://gate@a.example.net,b.example.net/fleet",
            "postgres://gate@db.example.net/fleet?sslmode=disable",
            "postgres://gate@/fleet",
        ] {
            let parsed = Database::parse(text);
            assert!(
                matches!(parsed, Err(UrlError::Malformed(_))),
                "{text}: {parsed:?}"
            );
        }
    }
}
