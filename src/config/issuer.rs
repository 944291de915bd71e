//! `[[identity.issuer]]`: issuers of OIDC tokens that are evidence for this gate, and their claims.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use toml::Spanned;

use crate::diag::{Diagnostic, did_you_mean};
use crate::name::Url;
use crate::policy::source::Placed;
use crate::policy::{PatternError, canonical_repository};

use super::claim::{Template, Wanted};
use super::files::read_text;
use super::preset::{PRESETS, Preset, owners};
use super::value;

/// `[[identity.issuer]]`: an issuer of OIDC tokens that are evidence for this gate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Issuer {
    /// `name`: the issuer's name in the log and in revocations.
    pub name: Arc<str>,
    /// `issuer`: the exact `iss` of the issuer's tokens.
    pub issuer: Arc<str>,
    /// `audience`: the `aud` of tokens for this gate.
    pub audience: Arc<str>,
    /// `algorithms`: the issuer's signature algorithms.
    pub algorithms: Vec<Arc<str>>,
    /// `jwks`: the URL of the issuer's keys; `None`: the URL in its discovery document.
    pub jwks: Option<Url>,
    /// The prefix before the JWT.
    pub prefix: &'static str,
    /// `require`: the required values of claims.
    pub require: Vec<(Arc<str>, Wanted)>,
    /// `claims`: the facts of a caller that are made from claims.
    pub claims: BTreeMap<&'static str, Template>,
    /// `repositories`: the repository of each pipeline.
    pub repositories: BTreeMap<Arc<str>, Arc<str>>,
    /// `longest`: the maximum lifetime of a token.
    pub longest: Duration,
    /// `stale`: how long keys are used if the issuer cannot be reached.
    pub stale: Duration,
    /// `addresses`: private addresses that the issuer may have.
    pub addresses: Vec<IpNet>,
    /// `roots`: the certificate authorities for the issuer's host; empty: the system's.
    pub roots: Vec<CertificateDer<'static>>,
}

impl Issuer {
    /// Returns the forge that the issuer belongs to: `{@forge}`.
    pub fn forge(&self) -> Option<String> {
        let url = Url::parse(self.issuer.as_bytes()).ok()?;
        let host = url.target.host.to_string();
        Some(match host.strip_prefix("token.actions.") {
            Some("githubusercontent.com") => "github.com".to_owned(),
            Some(rest) => rest.to_owned(),
            None => host,
        })
    }
}

/// The text of `[[identity.issuer]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Section {
    name: Spanned<String>,
    preset: Option<Spanned<String>>,
    issuer: Option<Spanned<String>>,
    audience: Spanned<String>,
    algorithms: Option<Vec<Spanned<String>>>,
    jwks: Option<Spanned<String>>,
    #[serde(default)]
    require: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    claims: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    repositories: BTreeMap<Spanned<String>, Spanned<String>>,
    longest: Option<Spanned<String>>,
    stale: Option<Spanned<String>>,
    #[serde(default)]
    addresses: Vec<Spanned<String>>,
    #[serde(default)]
    roots: Vec<Spanned<String>>,
}

/// The facts of a caller that claims can provide.
const FIELDS: [&str; 14] = [
    "agent",
    "beside",
    "commit",
    "groups",
    "organization",
    "pipeline",
    "ref",
    "repository",
    "run",
    "session",
    "task",
    "tier",
    "user",
    "worker",
];
pub(super) const ALGORITHMS: [&str; 9] = [
    "ES256", "ES384", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512",
];
const LIFETIME_RANGE: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(24));
const STALE: (Duration, Duration) = (Duration::ZERO, Duration::from_hours(7 * 24));

/// Reads the issuers; `files` collects the files and their content.
pub(super) fn issuers(
    sections: &[Placed<Section>],
    files: &mut Vec<(PathBuf, String)>,
    findings: &mut Vec<Diagnostic>,
) -> Vec<Issuer> {
    let mut issuers: Vec<Issuer> = Vec::new();
    for section in sections {
        let reader = Reader {
            section,
            files,
            findings,
        };
        let Some(issuer) = reader.issuer() else {
            continue;
        };
        let same = |other: &&Issuer| other.name == issuer.name || other.issuer == issuer.issuer;
        if let Some(other) = issuers.iter().find(same) {
            let message = format!("`{}` is the same issuer, or has its name", other.name);
            let finding =
                Diagnostic::error("issuer-twice", section.at(&section.value.name), message);
            findings.push(finding.label("here again").help(
                "a token is held against exactly one issuer: keep one, with `a|b` in its `require`",
            ));
        } else {
            issuers.push(issuer);
        }
    }
    issuers
}

struct Reader<'a> {
    section: &'a Placed<Section>,
    files: &'a mut Vec<(PathBuf, String)>,
    findings: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    fn issuer(mut self) -> Option<Issuer> {
        let written = &self.section.value;
        let preset = self.preset()?;
        let name = self.word(&written.name)?;
        let issuer = self.iss(preset)?;
        let audience = self.audience(preset);
        let algorithms = self.algorithms(preset);
        let jwks = self.jwks(preset, &issuer);
        let require = self.require(preset, &issuer);
        let claims = self.claims(preset);
        let repositories = self.repositories();
        let addresses = value::networks(self.section, &written.addresses, self.findings);
        let roots = self.roots();
        let longest = self.duration(written.longest.as_ref(), LIFETIME_RANGE, LIFETIME_RANGE.1);
        let stale = self.duration(written.stale.as_ref(), STALE, Duration::from_hours(24));
        Some(Issuer {
            name,
            issuer,
            audience: audience?,
            algorithms,
            jwks: jwks?,
            prefix: preset.map_or("", |preset| preset.prefix),
            require,
            claims,
            repositories,
            longest,
            stale,
            addresses,
            roots,
        })
    }

    fn say(&mut self, code: &'static str, at: &Spanned<String>, message: String, help: &str) {
        let finding = Diagnostic::error(code, self.section.at(at), message);
        self.findings.push(finding.help(help));
    }

    /// `Some(None)` if no preset is named.
    #[expect(
        clippy::option_option,
        reason = "a preset need not be named, and need not exist"
    )]
    fn preset(&mut self) -> Option<Option<&'static Preset>> {
        let Some(written) = &self.section.value.preset else {
            return Some(None);
        };
        let words = PRESETS.each_ref().map(|preset| preset.name);
        let found = PRESETS
            .iter()
            .find(|preset| preset.name == written.get_ref());
        if found.is_none() {
            let message = format!(
                "there is no preset `{}`",
                value::shortened(written.get_ref())
            );
            let help = did_you_mean(written.get_ref(), &words);
            self.say("unknown-word", written, message, &help);
        }
        found.map(Some)
    }

    /// Reads a printable word.
    fn word(&mut self, written: &Spanned<String>) -> Option<Arc<str>> {
        let text = written.get_ref().as_str();
        let sound = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !text.is_empty() && text.len() <= 253 && sound {
            return Some(text.into());
        }
        let message = "this has to be a printable word without blanks".to_owned();
        self.say(
            "bad-name",
            written,
            message,
            "write e.g. `tidegate.acme.example`",
        );
        None
    }

    fn iss(&mut self, preset: Option<&Preset>) -> Option<Arc<str>> {
        if let Some(written) = &self.section.value.issuer {
            return self.word(written);
        }
        let known = preset.map(|preset| preset.issuer).unwrap_or_default();
        if !known.is_empty() {
            return Some(known.into());
        }
        let message = "`[[identity.issuer]]` lacks its `issuer`";
        let finding = Diagnostic::error("missing-key", self.section.place(), message);
        self.findings.push(
            finding
                .label("`issuer` is missing")
                .help("write the exact `iss` of its tokens, e.g. `https://issuer.example.com`"),
        );
        None
    }

    fn audience(&mut self, preset: Option<&Preset>) -> Option<Arc<str>> {
        let written = &self.section.value.audience;
        let audience = self.word(written)?;
        let pool = preset.is_some_and(|preset| preset.name == "claude-code");
        if pool && !audience.starts_with("ccpool_") {
            let message = format!("`{}` is no pool", value::shortened(&audience));
            let help = "write the id of your pool, `ccpool_…`: others' sessions have other pools";
            self.say("bad-audience", written, message, help);
            return None;
        }
        if !pool && audience.starts_with("http") && self.is_default(&audience) {
            let message = "this is what tokens for anything say".to_owned();
            let help = "choose an audience of this gate's own, e.g. `tidegate.acme.example`";
            self.say("bad-audience", written, message, help);
            return None;
        }
        Some(audience)
    }

    /// Whether CI jobs get tokens with that audience by default.
    fn is_default(&self, audience: &str) -> bool {
        let defaults = [
            "https://github.com/",
            "https://gitlab.com",
            "https://buildkite.com/",
        ];
        let own = self.section.value.issuer.as_ref();
        defaults.iter().any(|known| audience.starts_with(known))
            || own.is_some_and(|own| own.get_ref() == audience)
    }

    fn algorithms(&mut self, preset: Option<&Preset>) -> Vec<Arc<str>> {
        let Some(written) = &self.section.value.algorithms else {
            let known = preset.map_or(["RS256"].as_slice(), |preset| preset.algorithms);
            return known.iter().map(|name| (*name).into()).collect();
        };
        for name in written {
            if !ALGORITHMS.contains(&name.get_ref().as_str()) {
                let shown = value::shortened(name.get_ref());
                let message = format!("tokens are not taken that are signed with `{shown}`");
                let help = format!("write some of {}", ALGORITHMS.join(", "));
                self.say("bad-algorithm", name, message, &help);
            }
        }
        if written.is_empty() {
            let message = "an issuer signs with something";
            let finding = Diagnostic::error("empty", self.section.place(), message);
            self.findings
                .push(finding.help("write e.g. `algorithms = [\"RS256\"]`"));
        }
        let names = written.iter().map(|name| name.get_ref().as_str().into());
        names.collect()
    }

    /// `Some(None)` if the keys are discovered.
    #[expect(
        clippy::option_option,
        reason = "a URL need not be written, and need not be one"
    )]
    fn jwks(&mut self, preset: Option<&Preset>, issuer: &str) -> Option<Option<Url>> {
        let written = self.section.value.jwks.as_ref();
        let known = preset.filter(|preset| !preset.jwks.is_empty());
        let (text, place) = match (written, known) {
            (Some(written), _) => (written.get_ref().as_str(), written),
            (None, Some(preset)) => (preset.jwks, &self.section.value.name),
            (None, None) => {
                if is_https(issuer).is_some() {
                    return Some(None);
                }
                let at = self.section.value.issuer.as_ref();
                let at = at.unwrap_or(&self.section.value.name);
                let message = "this is no https URL, so its keys cannot be discovered".to_owned();
                let help = "write an `issuer` that begins with `https://`, or say its `jwks`";
                self.say("bad-url", at, message, help);
                return None;
            }
        };
        let url = is_https(text);
        if url.is_none() {
            let message = format!("`{}` is no https URL", value::shortened(text));
            let help = "write e.g. `https://issuer.example.com/.well-known/jwks`";
            self.say("bad-url", place, message, help);
        }
        url.map(Some)
    }

    fn require(&mut self, preset: Option<&Preset>, issuer: &str) -> Vec<(Arc<str>, Wanted)> {
        let section = self.section;
        let mut require: Vec<(Arc<str>, Wanted)> = Vec::new();
        for (claim, text) in &section.value.require {
            match Wanted::parse(text.get_ref()) {
                Ok(wanted) => require.push((claim.get_ref().as_str().into(), wanted)),
                Err(error) => {
                    let message = match error {
                        PatternError::Empty => "an empty text is no value of a claim".to_owned(),
                        error => format!("this text is no value of a claim: {error}"),
                    };
                    let help = "write what it has to be: `\"1234\"`, `\"1234|5678\"`, `\"acme/*\"`";
                    self.say("bad-claim", text, message, help);
                }
            }
        }
        for (claim, text) in preset.map(|preset| preset.require).unwrap_or_default() {
            let said = require.iter().any(|(known, _)| **known == **claim);
            require.extend(
                Wanted::parse(text)
                    .ok()
                    .filter(|_| !said)
                    .map(|it| ((*claim).into(), it)),
            );
        }
        let Some(owners) = owners(issuer) else {
            return require;
        };
        let tells =
            |(claim, wanted): &(Arc<str>, Wanted)| owners.contains(&&**claim) && wanted.is_tight();
        if !require.iter().any(tells) {
            let message =
                format!("`{issuer}` signs for every account, and no claim says for which");
            let help = format!(
                "add `require = {{ {} = \"…\" }}` with what is yours, without `*`",
                owners.first().unwrap_or(&"…")
            );
            self.say("shared-issuer", &section.value.name, message, &help);
        }
        require
    }

    fn claims(&mut self, preset: Option<&Preset>) -> BTreeMap<&'static str, Template> {
        let section = self.section;
        let mut claims = BTreeMap::new();
        for (field, text) in preset.map(|preset| preset.claims).unwrap_or_default() {
            claims.extend(
                Template::parse(text)
                    .ok()
                    .map(|template| (*field, template)),
            );
        }
        for (field, text) in &section.value.claims {
            let known = FIELDS.iter().find(|known| *known == field.get_ref());
            let Some(known) = known else {
                let shown = value::shortened(field.get_ref());
                let message = format!("claims say nothing that is called `{shown}`");
                let help = did_you_mean(field.get_ref(), &FIELDS);
                self.say("unknown-key", field, message, &help);
                continue;
            };
            match Template::parse(text.get_ref()) {
                Ok(template) => {
                    claims.insert(*known, template);
                }
                Err(why) => {
                    let help = "write a claim, or a text with some: `\"github.com/{repository}\"`";
                    self.say("bad-claim", text, why.to_owned(), help);
                }
            }
        }
        claims
    }

    fn repositories(&mut self) -> BTreeMap<Arc<str>, Arc<str>> {
        let section = self.section;
        let mut repositories = BTreeMap::new();
        for (pipeline, written) in &section.value.repositories {
            let Some(repository) = canonical_repository(written.get_ref()) else {
                let shown = value::shortened(written.get_ref());
                let message = format!("`{shown}` is not the name of a repository");
                let help = "write the clone URL, e.g. `github.com/acme/web`";
                self.say("bad-repository", written, message, help);
                continue;
            };
            let pipeline = pipeline.get_ref().as_str().into();
            repositories.insert(pipeline, repository.into());
        }
        repositories
    }

    fn roots(&mut self) -> Vec<CertificateDer<'static>> {
        let section = self.section;
        let mut roots = Vec::new();
        for written in &section.value.roots {
            let path = super::folder_of(&section.source.path).join(written.get_ref());
            let text = match read_text(&path) {
                Ok(text) => text,
                Err(why) => {
                    let help = "write the path of a PEM file of certificates";
                    self.say(why.code(), written, why.to_string(), help);
                    continue;
                }
            };
            let parsed: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(text.as_bytes()).collect();
            match parsed {
                Ok(found) if !found.is_empty() => roots.extend(found),
                _ => {
                    let message = "this file holds no certificate in PEM".to_owned();
                    let help = "write the file of the certificate authority of the issuer's host";
                    self.say("bad-certificate", written, message, help);
                }
            }
            self.files.push((path, text));
        }
        roots
    }

    fn duration(
        &mut self,
        written: Option<&Spanned<String>>,
        bounds: (Duration, Duration),
        otherwise: Duration,
    ) -> Duration {
        let Some(written) = written else {
            return otherwise;
        };
        let place = self.section.at(written);
        value::duration(written.get_ref(), bounds, place, self.findings).unwrap_or(otherwise)
    }
}

/// Parses an https URL with a host name, as certificates name hosts.
fn is_https(text: &str) -> Option<Url> {
    let url = Url::parse(text.as_bytes()).ok()?;
    value::is_https(&url).then_some(url)
}
