//! The keys of a rule that say what a request may do.

use std::time::Duration;

use toml::Spanned;

use crate::diag::Diagnostic;

use super::Action;
use super::compile::unknown;
use super::conditions::{Actions, Conditions, DeedConditions, Tools};
use super::glob::{Case, Glob};
use super::pattern::BadPattern;
use super::rules::Reader;
use super::servers::ServerId;
use super::verdict::Verdict;

impl Reader<'_> {
    /// Everything that the rule asks of a request.
    pub(super) fn request(&mut self, verdict: Verdict, servers: &[ServerId]) -> Conditions {
        let deed = DeedConditions {
            servers: servers.into(),
            sites: servers
                .iter()
                .map(|id| self.known.servers.site(*id))
                .collect(),
            operations: self.operations(),
            repositories: self.repositories(),
            packages: self.packages(),
            refs: self.refs(),
            tools: self.tools(verdict),
            mcp_methods: self.mcp_methods(),
            credentials: self.credentials(),
        };
        Conditions {
            actions: self.actions(),
            methods: self.methods(),
            paths: self.paths(),
            deed: (!deed.is_empty()).then(|| Box::new(deed)),
        }
    }

    fn actions(&mut self) -> Actions {
        let mut actions = Actions::default();
        for text in &self.rule.value.actions {
            if let Some(action) = Action::from_word(text.get_ref()) {
                actions.insert(action);
            } else {
                let known = Action::ALL.iter().map(|action| action.as_str());
                let place = self.rule.at(text);
                self.findings
                    .push(unknown("action", place, text.get_ref(), known));
            }
        }
        actions
    }

    fn operations(&mut self) -> Box<[Glob]> {
        let rule = self.rule;
        self.globs(&rule.value.operations, "e.g. `publish`", |text| {
            Glob::parse_word(text)
        })
    }

    fn repositories(&mut self) -> Box<[Glob]> {
        let rule = self.rule;
        self.globs(&rule.value.repositories, "e.g. `acme/app`", |text| {
            if text.contains("://") || text.starts_with('/') || text.ends_with('/') {
                return Err("only the path at the destination is matched");
            }
            Glob::parse(text.strip_suffix(".git").unwrap_or(text), Case::Ignored)
        })
    }

    fn packages(&mut self) -> Box<[Glob]> {
        let rule = self.rule;
        self.globs(&rule.value.packages, "e.g. `@acme/*`", |text| {
            Glob::parse(text, Case::Kept)
        })
    }

    fn refs(&mut self) -> Box<[Glob]> {
        let rule = self.rule;
        self.globs(&rule.value.refs, "e.g. `agent/**`", |text| {
            if text.starts_with('/') || text.is_empty() {
                return Err("not the name of a branch, nor a ref");
            }
            match text.strip_prefix("refs/") {
                Some(_) => Glob::parse(text, Case::Kept),
                None => Glob::parse(&format!("refs/heads/{text}"), Case::Kept),
            }
        })
    }

    fn mcp_methods(&mut self) -> Box<[Glob]> {
        let rule = self.rule;
        self.demand_servers(rule.value.mcp_methods.first(), "mcp-methods");
        self.globs(&rule.value.mcp_methods, "e.g. `tools/*`", Glob::parse_word)
    }

    fn tools(&mut self, verdict: Verdict) -> Tools {
        let rule = self.rule;
        let Some(written) = &rule.value.tools else {
            return Tools::default();
        };
        self.demand_servers(Some(written), "tools");
        let tools = written.get_ref();
        if let (Some(first), true) = (tools.allow.first(), verdict != Verdict::Allow) {
            self.findings.push(
                Diagnostic::error(
                    "allow-in-deny",
                    self.rule.at(first),
                    format!("a rule that says {verdict} has no tools to allow"),
                )
                .label("which tools does it name?")
                .help("write `tools = { deny = [\"…\"] }`: those are the tools that it is about"),
            );
        }
        if tools.allow.is_empty() && tools.deny.is_empty() {
            self.findings.push(
                Diagnostic::error("empty-tools", self.rule.at(written), "no tool is named")
                    .label("neither `allow` nor `deny`")
                    .help("write e.g. `tools = { allow = [\"search_*\"] }`, or leave it out"),
            );
        }
        Tools {
            allow: self.globs(&tools.allow, "e.g. `search_*`", Glob::parse_word),
            deny: self.globs(&tools.deny, "e.g. `delete_*`", Glob::parse_word),
        }
    }

    /// Tools and methods of MCP are only read where a server is listed.
    fn demand_servers<T>(&mut self, written: Option<&Spanned<T>>, key: &str) {
        let Some(written) = written.filter(|_| self.rule.value.servers.is_empty()) else {
            return;
        };
        self.findings.push(
            Diagnostic::error(
                "no-servers",
                self.rule.at(written),
                format!("`{key}` of which MCP server?"),
            )
            .label("the rule has no `servers`")
            .help("write `servers = [\"NAME\"]`, and `[mcp.NAME]` with its `url`"),
        );
    }

    fn credentials(&mut self) -> Box<[Box<str>]> {
        const ALGORITHM: &str = "hmac-sha256:";
        let mut credentials: Vec<Box<str>> = Vec::new();
        for text in &self.rule.value.credentials {
            let digits = text.get_ref().strip_prefix(ALGORITHM).unwrap_or_default();
            if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                credentials.push(format!("{ALGORITHM}{}", digits.to_ascii_lowercase()).into());
                continue;
            }
            // What was written may be the credential itself: it is not repeated.
            self.findings.push(
                Diagnostic::error("bad-credential", self.rule.place(), "not a keyed hash")
                    .label("`credentials` of this rule")
                    .help("write `hmac-sha256:` and 64 hex digits, never the credential itself"),
            );
        }
        credentials.into()
    }

    /// `7 d`, `36 h`.
    pub(super) fn min_age(&mut self) -> Option<Duration> {
        let text = self.rule.value.min_age.as_ref()?;
        let age = age(text.get_ref());
        if age.is_none() {
            let label = "a number and a unit are needed".into();
            let help = "write e.g. `7 d` or `36 h`, at most `3650 d`".into();
            let bad = BadPattern { label, help };
            self.refuse("bad-age", text, "is not an age", bad);
        }
        age
    }

    fn globs(
        &mut self,
        written: &[Spanned<String>],
        example: &str,
        parse: impl Fn(&str) -> Result<Glob, &'static str>,
    ) -> Box<[Glob]> {
        let mut globs = Vec::with_capacity(written.len());
        for text in written {
            match parse(text.get_ref()) {
                Ok(glob) => globs.push(glob),
                Err(label) => {
                    let (label, help) = (label.into(), format!("write {example}"));
                    let bad = BadPattern { label, help };
                    self.refuse("bad-pattern", text, "cannot be matched", bad);
                }
            }
        }
        globs.into()
    }
}

impl DeedConditions {
    fn is_empty(&self) -> bool {
        let lists = [
            &self.operations,
            &self.repositories,
            &self.packages,
            &self.refs,
            &self.tools.allow,
            &self.tools.deny,
            &self.mcp_methods,
        ];
        lists.iter().all(|list| list.is_empty())
            && self.servers.is_empty()
            && self.credentials.is_empty()
    }
}

/// A time in days or hours, at most ten years.
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
