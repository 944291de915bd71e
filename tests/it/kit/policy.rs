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
    format!("{TIERS}{}{}", names(&["files.example.net"]), allow("files", "files.example.net", port))
}

/// Fixed answers on loopback for these names.
pub(crate) fn names(names: &[&str]) -> String {
    let hosts: Vec<String> =
        names.iter().map(|name| format!("\"{name}\" = [\"127.0.0.1\"]")).collect();
    format!("\n[dial]\nhosts = {{ {} }}\n", hosts.join(", "))
}

/// A rule that lets everyone reach that host and port on loopback.
pub(crate) fn allow(id: &str, host: &str, port: u16) -> String {
    allow_more(id, host, port, "")
}

/// As [`allow`], with more lines.
pub(crate) fn allow_more(id: &str, host: &str, port: u16, lines: &str) -> String {
    let mut rule = String::from("\n[[rule]]\n");
    let _ = write!(
        rule,
        "id = \"{id}\"\nverdict = \"allow\"\nhosts = [\"{host}\"]\nports = [{port}]\n\
         addresses = [\"127.0.0.0/8\"]\n{lines}\n"
    );
    rule
}
