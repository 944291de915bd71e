//! Findings as workflow commands of GitHub Actions, which shows them in a pull request.

use std::fmt::Write;

use crate::diag::{Diagnostic, Severity};
use crate::policy::Unenforced;

/// Formats a line for each finding: `::error file=FILE,line=N,col=N,title=CODE::MESSAGE`.
///
/// GitHub finds the file if the command line names it relative to the root of the repository.
pub(super) fn annotations(findings: &[Diagnostic], unenforced: &[Unenforced]) -> String {
    let findings = findings.iter().map(annotation);
    findings.chain(unenforced.iter().map(escape)).collect()
}

/// Formats a rule that tunnels bypass: `--strict` fails on it.
fn escape(unenforced: &Unenforced) -> String {
    let rule = &unenforced.rule;
    let place = rule.location.rsplit_once(':').map(|(file, line)| {
        let file = property(file);
        format!("file={file},line={line},")
    });
    let message = format!(
        "{} is not enforced in tier {}: tunnels are not inspected",
        rule.name, unenforced.tier
    );
    let place = place.unwrap_or_default();
    format!("::warning {place}title=not-enforced::{}\n", data(&message))
}

fn annotation(finding: &Diagnostic) -> String {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut line = format!("::{severity} ");
    if let Some(place) = &finding.place {
        let (row, column) = place.line_column();
        let file = property(&place.path().display().to_string());
        let _ = write!(line, "file={file},line={row},col={column},");
    }
    let _ = write!(line, "title={}::", property(finding.code));
    let more = [Some(&*finding.label), finding.help.as_deref()];
    let more = more.into_iter().flatten().filter(|text| !text.is_empty());
    let texts = std::iter::once(&*finding.message).chain(more);
    let _ = writeln!(line, "{}", data(&texts.collect::<Vec<_>>().join("\n")));
    line
}

/// Escapes a message. A policy may come from a pull request of an untrusted author: otherwise a
/// line break in the message would begin another command.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// Escapes the value of a property, which a comma or colon would end.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diag::{Place, Source};

    #[test]
    fn a_finding_is_one_line_at_its_place_whatever_its_text() {
        let source = Arc::new(Source::new("policy/a,b:c.toml", "[tiers]\nbogus = 1\n"));
        let text = "100% wrong\r\n::set-env name=PATH::/tmp";
        let finding = Diagnostic::error("unknown-key", Place::new(&source, 8..13), text)
            .label("not a key\n::error::made up")
            .help("remove it");
        let warning = Diagnostic::warning("old", Place::new(&source, 0..1), "b");
        let shown = annotations(&[finding, warning], &[]);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(
            lines,
            [
                "::error file=policy/a%2Cb%3Ac.toml,line=2,col=1,title=unknown-key::100%25 wrong%0D%0A\
                 ::set-env name=PATH::/tmp%0Anot a key%0A::error::made up%0Aremove it",
                "::warning file=policy/a%2Cb%3Ac.toml,line=1,col=1,title=old::b",
            ]
        );
    }

    #[test]
    fn a_finding_without_a_place_has_its_code() {
        let finding = Diagnostic::unplaced("no-authority", "none");
        let shown = annotations(&[finding], &[]);
        assert_eq!(shown, "::error title=no-authority::none\n");
    }
}
