//! The start messages of a gate: a few lines on standard error.

use std::io::{IsTerminal, Write};

use tracing_subscriber::EnvFilter;

use crate::config::{AdminAddress, Config, IdentityDemand, Listener, Record};
use crate::gate::Gate;

use super::discovery::Discovered;
use super::sockets::Bound;
use super::standing::WALLS;

/// The proxy URL that `tidegate env` uses by default.
const DEFAULT: &str = "http://127.0.0.1:3128";

/// Writes to standard error and ignores a failure: a closed standard error does not stop the gate.
pub(super) fn say(text: &str) {
    let mut error = std::io::stderr().lock();
    let _ = error.write_all(text.as_bytes());
    let _ = error.flush();
}

/// Whether standard error may have colour: it is a terminal, and neither `NO_COLOR` nor `TERM=dumb`
/// is set.
pub fn colour() -> bool {
    std::io::stderr().is_terminal() && wants_colour()
}

/// Whether standard output may have colour, by the same rules as [`colour`].
pub fn colour_of_output() -> bool {
    std::io::stdout().is_terminal() && wants_colour()
}

fn wants_colour() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let dumb = set("TERM").is_some_and(|term| term == "dumb");
    set("NO_COLOR").is_none() && !dumb
}

/// The log filter without `TIDEGATE_LOG`. Warnings of the HTTP/2 library are left out: any peer can
/// cause thousands a second.
const USUAL: &str = "info,h2=error";

/// The log for operators; decisions go to the record, not here. `TIDEGATE_LOG` filters it.
pub(super) fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("TIDEGATE_LOG").unwrap_or_else(|_| EnvFilter::new(USUAL));
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(colour());
    let _ = log.with_env_filter(filter).with_target(false).try_init();
}

/// The place of the records, as text for a person.
pub(super) fn record_place(record: &Record) -> String {
    match &record.file {
        Some(file) => format!("records in {}", file.display()),
        None => "records on standard output".to_owned(),
    }
}

/// Prints the listeners, the policy, the place of the records and the variables to export.
pub(super) fn started(config: &Config, discovered: &Discovered, gate: &Gate, bound: &Bound) {
    let snapshot = gate.snapshot.load();
    let mut text = String::new();
    for proxy in &bound.proxies {
        let address = proxy.listener.address;
        line(&mut text, format_args!("proxy on {address}"));
    }
    match (&config.listen.admin, bound.admin_address()) {
        (_, Some(address)) => line(&mut text, format_args!("admin on {address}")),
        (Some(AdminAddress::Unix(path)), None) => {
            line(&mut text, format_args!("admin on unix:{}", path.display()));
        }
        _ => {}
    }
    if let Some(address) = bound.remote_address() {
        line(&mut text, format_args!("admin-tls on {address}"));
    }
    let rules = match snapshot.policy.rule_count() {
        1 => "1 rule".to_owned(),
        count => format!("{count} rules"),
    };
    match config.path {
        Some(_) => line(&mut text, format_args!("{discovered}, {rules}")),
        None => line(
            &mut text,
            format_args!("no configuration: built-in policy and catalogue, all else is refused"),
        ),
    }
    let tier = snapshot.policy.who(&crate::policy::Facts::default()).tier;
    let tier = snapshot.policy.tier_name(tier);
    line(
        &mut text,
        format_args!("callers without a repository: tier {tier}"),
    );
    line(&mut text, format_args!("{}", record_place(&config.record)));
    if let Some(first) = bound.proxies.first() {
        let url = url(&first.listener);
        let more = match &*url {
            DEFAULT => String::new(),
            url => format!(" --proxy {url}"),
        };
        line(
            &mut text,
            format_args!("export HTTPS_PROXY={url} HTTP_PROXY={url}"),
        );
        line(
            &mut text,
            format_args!("all variables: eval \"$(tidegate env{more})\""),
        );
    }
    say(&text);
}

/// The warning that the policy is only advice to some callers, with the reason and the commands
/// that make it a wall.
pub(super) fn advice(why: &str) -> String {
    let mut text = String::new();
    line(&mut text, format_args!("THE POLICY IS ADVICE: {why}"));
    for (what, command) in WALLS {
        line(&mut text, format_args!("  a wall {what}: {command}"));
    }
    text
}

/// The URL of the proxy for a client on this host.
fn url(listener: &Listener) -> String {
    let who = match listener.identity {
        IdentityDemand::Optional => "",
        IdentityDemand::Required => "USER:SECRET@",
    };
    let scheme = if listener.tls.is_some() {
        "https"
    } else {
        "http"
    };
    format!("{scheme}://{who}{}", listener.address)
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    use std::fmt::Write;
    let _ = writeln!(text, "tidegate: {what}");
}
