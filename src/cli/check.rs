//! `tidegate check`: validates a configuration and summarises it.

mod due;
mod github;
mod unmatched;

use std::fmt::Write;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::app::Loaded;
use crate::clock::Clock;
use crate::config::Config;
use crate::diag::{Diagnostic, Severity};
use crate::policy::{Policy, Unenforced, built_in, reach_findings, relay_findings};

use super::admin::{self, Running};
use super::{Answer, load, parents, print, unseen};
use due::OldEntry;

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The configuration [default: `$TIDEGATE_CONFIG`, /etc/tidegate/tidegate.toml,
    /// ~/.config/tidegate/tidegate.toml, the built-in policy].
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The configuration, as for other commands.
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Fail also on warnings, and on rules that a tier does not enforce.
    #[arg(long)]
    strict: bool,
    /// Name the rules that decided no flow in the last 30 days of these records (packed or not, `-` for
    /// standard input).
    #[arg(long, value_name = "PATH", num_args = 1..)]
    records: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print the findings as annotations of a CI service.
    #[arg(long, conflicts_with = "json")]
    format: Option<Format>,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// Workflow commands of GitHub Actions, a line for each finding.
    Github,
}

impl Check {
    pub(super) fn perform(self) -> Answer {
        let named = self.config.as_deref().or(self.file.as_deref());
        let now = Clock::system().now();
        let mut loaded = Loaded::discovered(&load::find(named, self.json));
        let unenforced = match self.advise(&mut loaded, now) {
            Ok(unenforced) => unenforced,
            Err((answer, message)) => {
                print::err(&format!("tidegate: {message}\n"));
                return answer;
            }
        };
        self.print(&loaded, &unenforced, &due::old_entries(&built_in(), now));
        let is_clean = loaded.findings.is_empty() && unenforced.is_empty();
        match &loaded.policy {
            None => Answer::Wrong,
            Some(_) if self.strict => Answer::whether(is_clean),
            Some(_) => Answer::Yes,
        }
    }

    /// Adds the findings that only this command makes, for a configuration that loads. Returns the
    /// rules that tunnels bypass.
    fn advise(
        &self,
        loaded: &mut Loaded,
        now: Timestamp,
    ) -> Result<Vec<Unenforced>, (Answer, String)> {
        let (Some(config), Some(policy)) = (&loaded.config, &loaded.policy) else {
            return Ok(Vec::new());
        };
        let (mut found, unenforced) = reach_findings(&config.policy, policy);
        found.extend(parents::unjudged(config));
        found.extend(relay_findings(&config.policy, policy));
        found.extend(due::findings(loaded, config, now));
        if !self.records.is_empty() {
            found.extend(unmatched::findings(&self.records, config, now)?);
        }
        loaded.findings.extend(found);
        Ok(unenforced)
    }

    fn print(&self, loaded: &Loaded, unenforced: &[Unenforced], old: &[OldEntry]) {
        let address = match &loaded.config {
            Some(config) => config.listen.admin.clone(),
            None => Some(admin::default_address()),
        };
        let running = address.as_ref().and_then(admin::running);
        if self.json {
            print::json(&as_json(loaded, unenforced, old, running.as_ref()));
        } else if let Some(Format::Github) = self.format {
            print::out(&github::annotations(&loaded.findings, unenforced));
        } else {
            loaded.show();
            print::out(&not_enforced(unenforced));
            print::out(&summary(loaded, running.as_ref()));
            if let Some(policy) = &loaded.policy {
                print::out(&unlabelled(policy));
                print::out(&due::old_entries_line(old));
            }
        }
    }
}

/// Formats the rules and lists that tunnels bypass, one line for each tier.
fn not_enforced(unenforced: &[Unenforced]) -> String {
    let mut text = String::new();
    let mut rest = unenforced;
    while let Some(first) = rest.first() {
        let (of_tier, others) = rest.split_at(rest.partition_point(|it| it.tier == first.tier));
        let names: Vec<&str> = of_tier.iter().map(|it| &*it.rule.name).collect();
        let names = print::clean(&names.join(", "), 68);
        let _ = writeln!(
            text,
            "not enforced  {names}\n              in tier {}: tunnels are not inspected",
            first.tier
        );
        rest = others;
    }
    text
}

fn summary(loaded: &Loaded, running: Option<&Running>) -> String {
    let gate = gate(loaded, running);
    if let (Some(config), Some(policy)) = (&loaded.config, &loaded.policy) {
        return format!("{}{}{gate}", amounts(config, policy), passes_unseen(policy));
    }
    let errors = loaded.errors().count();
    let noun = if errors == 1 { "error" } else { "errors" };
    format!("result        {errors} {noun}: it does not load\n{gate}")
}

/// Summarises a valid configuration.
fn amounts(config: &Config, policy: &Policy) -> String {
    let tiers: Vec<&str> = policy.tiers().iter().map(|tier| &**tier).collect();
    let file = config
        .path
        .as_ref()
        .map_or("(built in)".into(), |path| path.display().to_string());
    format!(
        "file          {file}\n\
         digest        {}\n\
         tiers         {}\n\
         rules         {}, which name {} hosts and networks\n\
         groups        {}\n\
         repositories  {}\n\
         {}\
         trials        {} passed\n\
         result        it loads\n",
        config.digest,
        tiers.join(" < "),
        policy.rule_count(),
        policy.host_count(),
        config.policy.groups.len(),
        repositories(config),
        narrowed_by(config),
        policy.trial_count(),
    )
}

/// Formats the files of repositories that are a part of the policy, a line for each.
fn narrowed_by(config: &Config) -> String {
    let mut text = String::new();
    for one in &config.narrowed_by {
        let name = one.split(' ').next().unwrap_or_default();
        let _ = writeln!(
            text,
            "narrowed by   {}",
            print::clean(name, print::WIDTH - 14)
        );
    }
    text
}

/// Returns the number of repository patterns.
fn repositories(config: &Config) -> usize {
    let written = config.policy.repositories.iter();
    written.map(|it| it.value.r#match.0.len()).sum()
}

/// Formats the refusals of rules that a tunnel bypasses; empty if there are none.
fn passes_unseen(policy: &Policy) -> String {
    let hosts = unseen::telemetry(policy);
    if hosts.is_empty() {
        return String::new();
    }
    format!(
        "unseen        telemetry in tunnels to {}:\n              {}\n",
        hosts.join(", "),
        unseen::NEXT
    )
}

/// Formats the `[[destination]]` to write for hosts without a category.
fn unlabelled(policy: &Policy) -> String {
    let found = policy.unlabelled();
    let noun = match found.count {
        0 => return String::new(),
        1 => "host of an allow rule has",
        _ => "hosts of allow rules have",
    };
    let first = match found.count - found.hosts.len() {
        0 => String::new(),
        rest => format!(" (and {rest} more)"),
    };
    format!(
        "unlabelled    {} {noun} no category: records say `unknown`.\n              \
         To label{first}, with the category that fits:\n{}",
        found.count,
        found.destination()
    )
}

/// Formats the effect of a reload on the running gate, if there is one.
fn gate(loaded: &Loaded, running: Option<&Running>) -> String {
    let Some(running) = running else {
        return "running gate  none answers\n".to_owned();
    };
    let has = format!(
        "running gate  generation {}, digest {}",
        running.generation,
        print::clean(&running.digest, 80)
    );
    let error = running.error.as_deref().unwrap_or("files that do not load");
    let stale = if running.stale {
        format!("\n              it refused {}", print::clean(error, 160))
    } else {
        String::new()
    };
    let next = match &loaded.config {
        Some(config) if loaded.policy.is_some() && *config.digest == *running.digest => {
            "it has this configuration"
        }
        Some(_) if loaded.policy.is_some() => {
            "a reload takes this one; [listen], [[listener]] addresses and [record] keep\n              \
             what they are until the next start"
        }
        _ => "a reload keeps that, for this one does not load",
    };
    format!("{has}{stale}\n              {next}\n")
}

fn as_json(
    loaded: &Loaded,
    unenforced: &[Unenforced],
    old: &[OldEntry],
    running: Option<&Running>,
) -> Value {
    let mut value = json!({
        "ok": loaded.policy.is_some(),
        "findings": loaded.findings.iter().map(finding).collect::<Vec<_>>(),
        "unenforced": unenforced.iter().map(escape).collect::<Vec<_>>(),
        "gate": running,
    });
    if let (Some(config), Some(policy)) = (&loaded.config, &loaded.policy)
        && let Some(object) = value.as_object_mut()
    {
        object.insert("digest".into(), json!(config.digest));
        object.insert("tiers".into(), json!(policy.tiers()));
        object.insert("rules".into(), json!(policy.rule_count()));
        object.insert("hosts".into(), json!(policy.host_count()));
        object.insert("groups".into(), json!(config.policy.groups.len()));
        object.insert("repositories".into(), json!(repositories(config)));
        object.insert("narrowed_by".into(), json!(config.narrowed_by));
        object.insert("trials".into(), json!(policy.trial_count()));
        object.insert("unlabelled".into(), json!(policy.unlabelled().hosts));
        object.insert("unseen_telemetry".into(), json!(unseen::telemetry(policy)));
        let old: Vec<&str> = old.iter().map(|entry| &*entry.host).collect();
        object.insert("old_catalogue_entries".into(), json!(old));
    }
    value
}

fn escape(unenforced: &Unenforced) -> Value {
    json!({
        "tier": unenforced.tier,
        "rule": unenforced.rule.name,
        "location": unenforced.rule.location,
        "host": unenforced.host,
    })
}

/// Formats one finding as JSON.
pub(super) fn finding(finding: &Diagnostic) -> Value {
    let position = finding
        .place
        .as_ref()
        .map(|place| (place.path(), place.line_column()));
    json!({
        "severity": match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "code": finding.code,
        "message": finding.message,
        "file": position.map(|(path, _)| path.display().to_string()),
        "line": position.map(|(_, (line, _))| line),
        "column": position.map(|(_, (_, column))| column),
        "label": finding.label,
        "help": finding.help,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(digest: &str, stale: bool) -> Running {
        let error = stale.then(|| "policy/web.toml:3: unknown key \u{1b}[2J".to_owned());
        Running {
            digest: digest.to_owned(),
            generation: 7,
            stale,
            error,
        }
    }

    #[test]
    fn the_built_in_policy_loads_and_says_what_it_is() {
        let loaded = Loaded::new(None, &built_in());
        let said = summary(&loaded, None);
        assert!(said.contains("result        it loads\n"), "{said}");
        assert!(said.contains("standard"), "{said}");
        assert!(
            said.lines()
                .all(|line| line.chars().count() <= print::WIDTH),
            "{said}"
        );
        assert_eq!(
            as_json(&loaded, &[], &[], None).get("ok"),
            Some(&json!(true))
        );
    }

    #[test]
    fn an_upstream_that_no_flow_uses_is_found() {
        let codes = |more: &str| -> Vec<&str> {
            let text = format!("[upstream.internal]\nmin-version = \"1.3\"\n{more}");
            let config = crate::config::load_text("a.toml".as_ref(), &text)
                .0
                .unwrap();
            let (_, found) = crate::policy::compile(&config.policy, &built_in());
            found.iter().map(|it| it.code).collect()
        };
        assert_eq!(codes(""), ["unused-upstream"]);
        assert_eq!(codes("hosts = [\"internal.example.net\"]\n"), [""; 0]);
    }

    #[test]
    fn a_gate_is_compared_with_what_was_checked() {
        let loaded = Loaded::new(None, &built_in());
        let digest = loaded.config.as_ref().unwrap().digest.clone();
        assert!(gate(&loaded, Some(&running(&digest, false))).contains("has this configuration"));
        let other = gate(&loaded, Some(&running("ab", true)));
        assert!(other.contains("a reload takes this one"), "{other}");
        assert!(other.contains("it refused policy/web.toml:3"), "{other}");
        assert!(!other.contains('\u{1b}'), "{other}");
    }

    #[test]
    fn a_file_that_is_not_there_is_a_finding() {
        let loaded = Loaded::new(Some("/nowhere/tidegate.toml".as_ref()), &built_in());
        assert!(loaded.policy.is_none());
        let said = summary(&loaded, Some(&running("ab", false)));
        assert!(said.contains("1 error: it does not load"), "{said}");
        assert!(said.contains("a reload keeps that"), "{said}");
        let value = as_json(&loaded, &[], &[], None);
        assert_eq!(value.get("ok"), Some(&json!(false)));
        assert_eq!(value.pointer("/findings/0/severity"), Some(&json!("error")));
    }
}
