//! Pieces of configuration that most tests begin with.

use std::fmt::Write as _;

/// Three tiers that let nothing pass by themselves; callers without a repository are `standard`.
pub(crate) const TIERS: &str = r#"
[tiers]
order = ["open", "standard", "restricted"]
unattributed = "standard"

[tier.open]
default = "deny"

[tier.standard]
default = "deny"

[tier.restricted]
default = "deny"
"#;

/// The tiers, and leave to reach `files.example.net` at that port on loopback.
pub(crate) fn loopback(port: u16) -> String {
    format!(
        "{TIERS}{}{}",
        names(&["files.example.net"]),
        allow("files", "files.example.net", port)
    )
}

/// Fixed answers on loopback for these names.
pub(crate) fn names(names: &[&str]) -> String {
    let hosts: Vec<String> = names
        .iter()
        .map(|name| format!("\"{name}\" = [\"127.0.0.1\"]"))
        .collect();
    format!("\n[dial]\nhosts = {{ {} }}\n", hosts.join(", "))
}

/// A rule that lets everyone reach that host and port on loopback.
pub(crate) fn allow(id: &str, host: &str, port: u16) -> String {
    allow_more(id, host, port, "")
}

/// What lines of a `[[destination]]` begin with.
const LABELS: &[&str] = &["category = ", "service = "];

/// As [`allow`], with more lines. Lines of a `[[destination]]` (`category`, `service`) label the host;
/// an `unless.…` makes a second rule, the deny `ID-unless`.
pub(crate) fn allow_more(id: &str, host: &str, port: u16, lines: &str) -> String {
    let of = |keys: &'static [&str]| {
        let wanted = move |line: &&str| keys.iter().any(|key| line.trim_start().starts_with(key));
        lines.lines().filter(wanted).collect::<Vec<_>>().join("\n")
    };
    let (label, unless) = (of(LABELS), of(&["unless."]));
    let rest = lines.lines().filter(|line| {
        let line = line.trim_start();
        !line.starts_with("unless.") && !LABELS.iter().any(|key| line.starts_with(key))
    });
    let rest = rest.collect::<Vec<_>>().join("\n");
    let mut rule = String::new();
    if !label.is_empty() {
        let _ = write!(
            rule,
            "\n[[destination]]\nhosts = [\"{host}\"]\nports = [{port}]\n{label}\n"
        );
    }
    let _ = write!(
        rule,
        "\n[[rule]]\nid = \"{id}\"\nverdict = \"allow\"\nto.hosts = [\"{host}\"]\n\
         to.ports = [{port}]\ngrant.addresses = [\"127.0.0.0/8\"]\n{rest}\n"
    );
    if !unless.is_empty() {
        let _ = write!(
            rule,
            "\n[[rule]]\nid = \"{id}-unless\"\nverdict = \"deny\"\nto.hosts = [\"{host}\"]\n\
             to.ports = [{port}]\n{unless}\n"
        );
    }
    rule
}
