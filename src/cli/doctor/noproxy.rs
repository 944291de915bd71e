//! Checks that every client reads `NO_PROXY` in the same way.

use std::net::IpAddr;

use super::report::Item;
use super::surroundings::Surroundings;

const NAMES: [&str; 3] = ["NO_PROXY", "no_proxy", "npm_config_noproxy"];
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Programs that compare an entry with the host name and do not support networks.
const NO_NETWORKS: [&str; 4] = ["npm", "pnpm", "node", "wget"];

/// Checks each variable, and that they agree.
pub(super) fn look(around: &Surroundings) -> Vec<Item> {
    let mut items: Vec<Item> = NAMES
        .iter()
        .filter_map(|name| Some((*name, around.get(name)?)))
        .flat_map(|(name, value)| entries(name, value, around))
        .collect();
    let (upper, lower) = (around.get("NO_PROXY"), around.get("no_proxy"));
    if upper != lower {
        items.push(
            Item::finding(
                "no_proxy",
                "NO_PROXY",
                "differs from no_proxy: clients read one of them",
            )
            .fix("export no_proxy=\"$NO_PROXY\""),
        );
    }
    if upper.is_none() && lower.is_none() && super::proxy::variable(around).is_some() {
        items.push(loopback("NO_PROXY"));
    }
    if items.is_empty() {
        items.push(Item::fine(
            "no_proxy",
            "NO_PROXY",
            "local, and the same for all",
        ));
    }
    items
}

fn entries(name: &str, value: &str, around: &Surroundings) -> Vec<Item> {
    let entries: Vec<&str> = value
        .split([',', ' '])
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .collect();
    let mut items: Vec<Item> = entries
        .iter()
        .filter_map(|entry| wrong(name, entry, around))
        .collect();
    if LOCAL.iter().any(|local| !entries.contains(local)) {
        items.push(loopback(name));
    }
    items
}

fn loopback(name: &str) -> Item {
    Item::finding(
        "no_proxy",
        name,
        "does not name loopback: requests to local servers use the proxy",
    )
    .fix(format!(
        "export {name}=\"${{{name}:+${name},}}localhost,127.0.0.1,::1\""
    ))
}

/// Returns the fault of one entry.
fn wrong(name: &str, entry: &str, around: &Surroundings) -> Option<Item> {
    let found = |text: String| {
        let fix = format!("remove `{entry}` from {name}; write exact names and addresses");
        Some(Item::finding("no_proxy", name, text).fix(fix))
    };
    if matches!(entry, "*" | "." | "*.*") {
        return found(format!("`{entry}`: no request uses the proxy"));
    }
    if let Some((address, bits)) = entry.split_once('/')
        && address.parse::<IpAddr>().is_ok()
    {
        if bits == "0" {
            return found(format!("`{entry}`: no address uses the proxy"));
        }
        let here: Vec<&str> = NO_NETWORKS
            .into_iter()
            .filter(|program| around.program(program).is_some())
            .collect();
        let who = if here.is_empty() {
            "npm and wget".to_owned()
        } else {
            here.join(", ")
        };
        return found(format!("`{entry}`: not understood by {who}"));
    }
    let suffix = entry.trim_start_matches("*.").trim_start_matches('.');
    let whole_domain = suffix != entry && !suffix.contains('.');
    whole_domain.then(|| {
        found(format!(
            "`{entry}`: a whole top-level domain bypasses the proxy"
        ))
    })?
}
