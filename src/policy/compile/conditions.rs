//! Compiles `does` and `unless` of a rule into conditions.

use std::time::Duration;

use toml::Spanned;

use crate::diag::Diagnostic;
use crate::policy::Action;
use crate::policy::conditions::{Actions, Conditions, NamedConditions};
use crate::policy::paths::PathPattern;
use crate::policy::pattern::{BadPattern, Kind, Pattern, PatternError};
use crate::policy::repository::repository_pattern;
use crate::policy::servers::ServerId;
use crate::policy::verdict::Verdict;

use super::rules::Reader;
use crate::policy::findings::unknown;

impl Reader<'_> {
    /// Compiles the conditions on a request. Conditions of a deny or an ask ignore the case of
    /// letters.
    pub(super) fn conditions(&mut self, verdict: Verdict, servers: &[ServerId]) -> Conditions {
        let read = |text: &str, kind| {
            let pattern = Pattern::parse(text, kind)?;
            Ok(match verdict {
                Verdict::Allow => pattern,
                Verdict::Ask | Verdict::Deny => pattern.widened(),
            })
        };
        let does = &self.rule.value.does;
        self.demand_servers(does.tools.first(), "tools");
        self.demand_servers(does.mcp_methods.first(), "mcp-methods");
        let sites = servers.iter().map(|id| self.known.servers.site(*id));
        let word = |text: &str| read(text, Kind::Word);
        let named = NamedConditions {
            servers: servers.into(),
            sites: sites.collect(),
            operations: self.globs(&does.operations, "e.g. `publish`", word),
            repositories: self.globs(
                &does.repositories,
                "e.g. `acme/app`",
                destination_repository,
            ),
            packages: self.globs(&does.packages, "e.g. `@acme/*`", |it| read(it, Kind::Name)),
            refs: self.globs(&does.refs, "e.g. `agent/**`", |text| reference(text, read)),
            tools: self.globs(&does.tools, "e.g. `search_*`", word),
            mcp_methods: self.globs(&does.mcp_methods, "e.g. `tools/*`", word),
        };
        Conditions {
            actions: self.actions(),
            methods: self.methods(),
            paths: self.paths(),
            named: (!named.is_empty()).then(|| Box::new(named)),
        }
    }

    fn actions(&mut self) -> Actions {
        let mut actions = Actions::default();
        for text in &self.rule.value.does.actions {
            if let Some(action) = Action::from_word(text.get_ref()) {
                actions.insert(action);
            } else {
                let known = Action::ALL.iter().map(|action| action.as_str());
                let place = self.rule.at(text);
                let mut finding = unknown("action", place, text.get_ref(), known);
                if ["allow", "ask", "deny"].contains(&text.get_ref().as_str()) {
                    finding = finding.help("an action is what a request does; `verdict` says this");
                }
                self.findings.push(finding);
            }
        }
        actions
    }

    fn methods(&mut self) -> Box<[Box<str>]> {
        let mut methods: Vec<Box<str>> = Vec::new();
        for text in &self.rule.value.does.methods {
            let method = text.get_ref();
            let sound =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let upper = method.to_ascii_uppercase();
            let (label, help) = if method.is_empty() || !method.bytes().all(sound) {
                ("not a token of HTTP", "write e.g. `GET`".into())
            } else if upper == *method {
                methods.push(method.as_str().into());
                continue;
            } else {
                ("methods are case-sensitive", format!("write `{upper}`"))
            };
            let label = label.into();
            self.refuse(
                "bad-method",
                text,
                "is not a method",
                BadPattern { label, help },
            );
        }
        methods.into()
    }

    fn paths(&mut self) -> Box<[PathPattern]> {
        let mut paths = Vec::new();
        for text in &self.rule.value.does.paths {
            match PathPattern::parse(text.get_ref()) {
                Ok(path) => paths.push(path),
                Err(error) => {
                    let label = error.to_string();
                    let help = "write e.g. `/crate/*/docs/**`".into();
                    self.refuse(
                        "bad-path",
                        text,
                        "is not a path pattern",
                        BadPattern { label, help },
                    );
                }
            }
        }
        paths.into()
    }

    /// Compiles `from.repositories`: the caller's own.
    pub(super) fn own_repositories(&mut self) -> Box<[Pattern]> {
        let mut globs = Vec::new();
        for text in &self.rule.value.from.repositories {
            match repository_pattern(text.get_ref()) {
                Ok(pattern) => globs.push(pattern),
                Err((label, help)) => {
                    let is = "matches no repository";
                    self.refuse("bad-repository", text, is, BadPattern { label, help });
                }
            }
        }
        globs.into()
    }

    /// Checks that conditions on tools and methods of MCP have a server: only those messages are
    /// read.
    fn demand_servers(&mut self, written: Option<&Spanned<String>>, key: &str) {
        let servers = &self.rule.value.does.servers;
        let Some(written) = written.filter(|_| servers.is_empty()) else {
            return;
        };
        let message = format!("`does.{key}` needs `does.servers`");
        self.findings.push(
            Diagnostic::error("no-servers", self.rule.at(written), message)
                .label("the rule has no `does.servers`")
                .help("write `does.servers = [\"NAME\"]`, and `[mcp.NAME]` with its `url`"),
        );
    }

    pub(super) fn credentials(&mut self) -> Box<[Box<str>]> {
        const ALGORITHM: &str = "hmac-sha256:";
        let mut credentials: Vec<Box<str>> = Vec::new();
        for text in &self.rule.value.unless.credentials {
            let digits = text.get_ref().strip_prefix(ALGORITHM).unwrap_or_default();
            if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                credentials.push(format!("{ALGORITHM}{}", digits.to_ascii_lowercase()).into());
                continue;
            }
            // The text may be the credential itself, so the finding does not repeat it.
            self.findings.push(
                Diagnostic::error("bad-credential", self.rule.place(), "not a keyed hash")
                    .label("`unless.credentials` of this rule")
                    .help("write `hmac-sha256:` and 64 hex digits, never the credential itself"),
            );
        }
        credentials.into()
    }

    /// Parses `7 days`, `36 h`.
    pub(super) fn min_age(&mut self) -> Option<Duration> {
        let text = self.rule.value.unless.min_age.as_ref()?;
        let age = age(text.get_ref());
        if age.is_none() {
            let label = "a number and a unit are needed".into();
            let help = "write e.g. `7 days` or `36 h`, at most `3650 days`".into();
            self.refuse("bad-age", text, "is not an age", BadPattern { label, help });
        }
        age
    }

    pub(super) fn globs<E: ToString>(
        &mut self,
        written: &[Spanned<String>],
        example: &str,
        parse: impl Fn(&str) -> Result<Pattern, E>,
    ) -> Box<[Pattern]> {
        let mut globs = Vec::with_capacity(written.len());
        for text in written {
            match parse(text.get_ref()) {
                Ok(glob) => globs.push(glob),
                Err(label) => {
                    let (label, help) = (label.to_string(), format!("write {example}"));
                    let bad = BadPattern { label, help };
                    self.refuse("bad-pattern", text, "cannot be matched", bad);
                }
            }
        }
        globs.into()
    }
}

/// Parses a repository at the destination.
fn destination_repository(text: &str) -> Result<Pattern, String> {
    if text.contains("://") || text.starts_with('/') || text.ends_with('/') {
        return Err("only the path at the destination is matched".into());
    }
    let text = text.strip_suffix(".git").unwrap_or(text);
    Pattern::parse(text, Kind::Repository).map_err(|error| error.to_string())
}

/// Parses a branch, or a ref by its whole name.
fn reference(
    text: &str,
    read: impl Fn(&str, Kind) -> Result<Pattern, PatternError>,
) -> Result<Pattern, String> {
    if text.starts_with('/') || text.is_empty() {
        return Err("not the name of a branch, nor a ref".into());
    }
    let whole = match text.strip_prefix("refs/") {
        Some(_) => text.to_owned(),
        None => format!("refs/heads/{text}"),
    };
    read(&whole, Kind::Name).map_err(|error| error.to_string())
}

impl NamedConditions {
    fn is_empty(&self) -> bool {
        let lists = [
            &self.operations,
            &self.repositories,
            &self.packages,
            &self.refs,
            &self.tools,
            &self.mcp_methods,
        ];
        lists.iter().all(|list| list.is_empty()) && self.servers.is_empty()
    }
}

/// Parses a time in days or hours, at most ten years.
fn age(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let hours = match unit.trim_start() {
        "d" | "day" | "days" => 24,
        "h" => 1,
        _ => return None,
    };
    let hours = number
        .checked_mul(hours)
        .filter(|hours| *hours <= 3650 * 24)?;
    (hours > 0).then(|| Duration::from_secs(hours * 3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_days_or_hours() {
        let hours = |text| age(text).map(|age| age.as_secs() / 3600);
        assert_eq!(hours("7d"), Some(168));
        assert_eq!(hours("7 d"), Some(168));
        assert_eq!(hours("36 h"), Some(36));
        for wrong in [
            "",
            "d",
            "7",
            "0 d",
            "-1 d",
            "7 w",
            "4000 d",
            "99999999999999999999 d",
        ] {
            assert_eq!(age(wrong), None, "{wrong}");
        }
    }
}
