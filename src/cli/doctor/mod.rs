//! `tidegate doctor`: whether programs here use the proxy, and whether there is another way out.
//!
//! Run it in the agent's place, with the agent's environment: the gate's own account may have other
//! variables and access than the agent's.

#[cfg(target_os = "linux")]
mod inside;
mod ledger;
mod noproxy;
mod proxy;
mod reach;
mod report;
mod runtimes;
mod sockets;
mod standing;
mod surroundings;
mod upstreams;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::app::{Discovered, Loaded, Origin};
use crate::clock::Clock;
use crate::config::AdminAddress;

use super::{Answer, admin, load, print, unseen};

use report::{Item, Report};
use surroundings::Surroundings;

#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    /// The configuration of the gate, if it can be read here [default: `$TIDEGATE_CONFIG`,
    /// /etc/tidegate/tidegate.toml, ~/.config/tidegate/tidegate.toml, the built-in policy].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The proxy [default: `HTTPS_PROXY`, otherwise the proxy of the configuration].
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Report to the gate whether this place is contained: ADDRESS:PORT or unix:PATH of its admin
    /// listener. Needs a token: `TIDEGATE_REPORT_TOKEN`, or one that the control socket makes.
    #[arg(long, value_name = "ADDRESS", value_parser = admin::parse_address)]
    report: Option<AdminAddress>,
    /// The gate's control socket, which makes tokens for reports [default: that of the
    /// configuration].
    #[arg(long, value_name = "unix:PATH", value_parser = admin::parse_address)]
    control: Option<AdminAddress>,
    /// Only print a token for N reports within 7 days, for the place of an agent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    report_token: Option<u32>,
    /// A token for one or more reports.
    #[arg(
        long,
        env = "TIDEGATE_REPORT_TOKEN",
        hide = true,
        hide_env_values = true
    )]
    with_report_token: Option<String>,
    /// Test the last wall in this process, which the test changes.
    #[cfg(target_os = "linux")]
    #[arg(long, hide = true)]
    try_namespaces: bool,
    #[command(flatten)]
    targets: Targets,
}

/// Targets that must not be reachable; each option may be repeated.
#[derive(Debug, clap::Args)]
struct Targets {
    /// Must not accept a TCP connection.
    #[arg(long = "probe-tcp", value_name = "ADDRESS:PORT")]
    #[arg(default_values = ["1.1.1.1:443", "1.1.1.1:80"])]
    tcp: Vec<SocketAddr>,
    /// Must not answer QUIC.
    #[arg(long = "probe-udp", value_name = "ADDRESS:PORT", default_values = ["1.1.1.1:443"])]
    udp: Vec<SocketAddr>,
    /// Must not resolve a name, by UDP or TCP.
    #[arg(long = "probe-dns", value_name = "ADDRESS:PORT")]
    #[arg(default_values = ["1.1.1.1:53", "8.8.8.8:53"])]
    dns: Vec<SocketAddr>,
    /// Must not accept a TCP connection over IPv6.
    #[arg(long = "probe-ipv6", value_name = "ADDRESS:PORT", default_values = ["[2606:4700:4700::1111]:443"])]
    ipv6: Vec<SocketAddr>,
    /// The metadata service of a cloud: must not accept a TCP connection.
    #[arg(long = "probe-metadata", value_name = "ADDRESS:PORT", default_values = ["169.254.169.254:80"])]
    metadata: Vec<SocketAddr>,
}

impl Doctor {
    pub(super) fn perform(self) -> Answer {
        if let Some(reports) = self.report_token {
            return self.print_token(reports);
        }
        #[cfg(target_os = "linux")]
        if self.try_namespaces {
            return if inside::namespaces_give_nothing() {
                Answer::Yes
            } else {
                Answer::No
            };
        }
        let around = Surroundings::of_this_process();
        let discovered = load::find(self.config.as_deref(), self.json);
        let loaded = loaded(&discovered);
        if !self.json {
            loaded.show();
        }
        let mut items = proxy::look(
            self.proxy.as_deref(),
            self.config.is_some(),
            &loaded,
            &around,
        );
        items.push(policy(&loaded));
        items.extend(telemetry(&loaded));
        items.push(standing::look(&loaded));
        items.extend(ledger::look(&loaded));
        if loaded
            .config
            .as_ref()
            .is_some_and(|config| !config.upstreams.is_empty())
        {
            items.extend(upstreams::look(&loaded, &Clock::system()));
        }
        items.extend(runtimes::look(&around));
        items.extend(noproxy::look(&around));
        items.extend(self.walls(&around));
        let report = Report::new(items, loaded.policy.is_some());
        if self.json {
            print::json(&report.as_json());
        } else {
            print::out(&report.draw());
        }
        let send = |address| {
            let token = self.token(&loaded)?;
            report.send(address, &token)
        };
        match self.report.as_ref().map(send) {
            Some(Err(error)) => {
                print::err(&format!(
                    "tidegate: the gate did not accept the report: {error}\n"
                ));
                report.answer(Answer::Failed)
            }
            _ => report.answer(Answer::Yes),
        }
    }
}

/// The lifetime of a report token for the place of an agent, in seconds.
const TOKEN_LIFETIME: u32 = 7 * 24 * 3600;

impl Doctor {
    /// Returns the token for a report: the given one, or a new one from the control socket.
    fn token(&self, loaded: &Loaded) -> io::Result<String> {
        if let Some(token) = &self.with_report_token {
            return Ok(token.clone());
        }
        let control = self.control(loaded).ok_or_else(|| {
            io::Error::other(
                "no token for it: set TIDEGATE_REPORT_TOKEN to what \
                 `tidegate doctor --report-token 1` prints at the gate, or name --control unix:PATH",
            )
        })?;
        report::token(&control, 60, 1)
    }

    /// Returns the control socket: as given, otherwise from the configuration.
    fn control(&self, loaded: &Loaded) -> Option<AdminAddress> {
        let written = loaded.config.as_ref();
        let written = written.and_then(|config| config.listen.control.as_ref());
        let written = written.map(|control| AdminAddress::Unix(control.path.clone()));
        self.control.clone().or(written)
    }

    fn print_token(&self, reports: u32) -> Answer {
        let loaded = loaded(&load::find(self.config.as_deref(), true));
        let control = self.control(&loaded);
        let made = control
            .ok_or_else(|| io::Error::other("the configuration names no control socket"))
            .and_then(|control| report::token(&control, TOKEN_LIFETIME, reports));
        match made {
            Ok(token) => {
                print::out(&format!("{token}\n"));
                Answer::Yes
            }
            Err(error) => {
                print::err(&format!("tidegate: no token was made: {error}\n"));
                Answer::Failed
            }
        }
    }
}

/// Loads the configuration. A default configuration that cannot be read belongs to another user, as
/// intended: the agent's place is checked without it.
fn loaded(discovered: &Discovered) -> Loaded {
    let loaded = Loaded::discovered(discovered);
    let unreadable = loaded.findings.iter().any(|it| it.code == "unreadable");
    if unreadable && discovered.origin != Origin::CommandLine {
        return Loaded::new(None, &crate::policy::built_in());
    }
    loaded
}

impl Doctor {
    /// Tests the promises of a jail; outside a jail, tests which targets are reachable without the
    /// proxy.
    fn walls(&self, around: &Surroundings) -> Vec<Item> {
        #[cfg(target_os = "linux")]
        if let Some(inside) = inside::Inside::here(around) {
            let mut items = inside.look();
            // On the machine's network, the targets are outside.
            if items
                .iter()
                .all(|item| item.subject != "network" || item.state == report::State::Fine)
            {
                items.extend(reach::look(&self.targets));
            }
            return items;
        }
        let mut items = reach::look(&self.targets);
        items.extend(sockets::look(around));
        items
    }
}

/// Reports telemetry that passes in tunnels and would be refused if inspected.
fn telemetry(loaded: &Loaded) -> Option<Item> {
    let hosts = unseen::telemetry(loaded.policy.as_ref()?);
    let text = format!("of agents passes unseen in tunnels to {}", hosts.join(", "));
    (!hosts.is_empty()).then(|| Item::unknown("policy", "telemetry", text).fix(unseen::NEXT))
}

/// Reports whether the configuration loads, as `tidegate check` does.
fn policy(loaded: &Loaded) -> Item {
    let name = loaded
        .config
        .as_ref()
        .and_then(|config| config.path.as_ref());
    let name = name.map_or("built in".to_owned(), |path| path.display().to_string());
    let errors = loaded.errors().count();
    if loaded.policy.is_some() {
        return Item::fine("policy", name, "it loads, and its trials pass");
    }
    Item::finding("policy", name, format!("it does not load: {errors} errors"))
        .fix("tidegate check FILE")
}
