//! `tidegate doctor`: whether the proxy is used in this place, and whether there is another way out.
//!
//! Run it where the agent runs, with the agent's environment: what is true for the gate's own
//! account says nothing about the agent's.

#[cfg(target_os = "linux")]
mod inside;
mod noproxy;
mod proxy;
mod reach;
mod report;
mod runtimes;
mod sockets;
mod surroundings;
mod upstreams;

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::clock::Clock;
use crate::config::AdminAddress;

use super::load::Loaded;
use super::{Answer, admin, print};

use report::{Item, Report};
use surroundings::Surroundings;

#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    /// The configuration of the gate, where it can be read here.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The proxy [default: what `HTTPS_PROXY` says, else what the configuration says].
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Tell the gate whether this place is contained: ADDRESS:PORT or unix:PATH of its admin.
    #[arg(long, value_name = "ADDRESS", value_parser = admin::parse_address)]
    report: Option<AdminAddress>,
    /// Try the last wall in this process, which the try changes.
    #[cfg(target_os = "linux")]
    #[arg(long, hide = true)]
    try_namespaces: bool,
    #[command(flatten)]
    targets: Targets,
}

/// What must not be reached; each may be given several times.
#[derive(Debug, clap::Args)]
struct Targets {
    /// Must not take a TCP connection.
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
    /// Must not take a TCP connection by IPv6.
    #[arg(long = "probe-ipv6", value_name = "ADDRESS:PORT", default_values = ["[2606:4700:4700::1111]:443"])]
    ipv6: Vec<SocketAddr>,
    /// The metadata service of a cloud: must not take a TCP connection.
    #[arg(long = "probe-metadata", value_name = "ADDRESS:PORT", default_values = ["169.254.169.254:80"])]
    metadata: Vec<SocketAddr>,
}

impl Doctor {
    pub(super) fn perform(self) -> Answer {
        #[cfg(target_os = "linux")]
        if self.try_namespaces {
            return if inside::namespaces_give_nothing() {
                Answer::Yes
            } else {
                Answer::No
            };
        }
        let around = Surroundings::of_this_process();
        let loaded = Loaded::new(self.config.as_deref());
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
        match self.report.as_ref().map(|address| report.send(address)) {
            Some(Err(error)) => {
                print::err(&format!("tidegate: the report was not taken: {error}\n"));
                report.answer(Answer::Failed)
            }
            _ => report.answer(Answer::Yes),
        }
    }
}

impl Doctor {
    /// In a jail, its promises, each tried; elsewhere, what is reached without the proxy.
    fn walls(&self, around: &Surroundings) -> Vec<Item> {
        #[cfg(target_os = "linux")]
        if let Some(inside) = inside::Inside::here(around) {
            let mut items = inside.look();
            // On a network of the machine's, the targets are outside.
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

/// Whether the configuration loads: what `tidegate check` says.
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
