//! The effect of parent proxies on the policy: if a parent resolves a name, the gate sees no
//! address.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::Spanned;

use crate::config::{Config, Parent, Resolve};
use crate::diag::Diagnostic;
use crate::name::{Host, Target};
use crate::policy::Category;
use crate::policy::source::{Placed, Rule};

/// Returns the parents for a target, in order.
pub(super) fn of<'c>(
    config: &'c Config,
    target: &'c Target,
    category: Category,
) -> impl Iterator<Item = &'c Parent> {
    let parents = config.dial.parents.iter();
    parents.filter(move |parent| parent.is_for(target, category))
}

/// Returns the parent that resolves the name of a target, so that no address is judged here.
pub(super) fn resolving<'c>(
    config: &'c Config,
    target: &'c Target,
    category: Category,
) -> Option<&'c Parent> {
    let resolves = |parent: &Parent| parent.resolve == Resolve::Parent;
    let named = matches!(target.host, Host::Name(_));
    let first = of(config, target, category).next().filter(|_| named)?;
    of(config, target, category).all(resolves).then_some(first)
}

/// Reports networks of deny rules that names bypass because a parent resolves them.
pub(super) fn unjudged(config: &Config) -> Vec<Diagnostic> {
    let mut parents = config.dial.parents.iter();
    let Some(parent) = parents.find(|parent| parent.resolve == Resolve::Parent) else {
        return Vec::new();
    };
    let denies = config.policy.rules.iter();
    let denies = denies.filter(|rule| rule.value.verdict.get_ref() == "deny");
    let first_network = denies.filter_map(|rule| {
        let mut hosts = rule.value.to.hosts.iter();
        Some((rule, hosts.find(|host| is_network(host.get_ref()))?))
    });
    let finding = |(rule, network): (&Placed<Rule>, &Spanned<String>)| {
        let message = format!(
            "`{}` is not denied to names that the parent {} resolves",
            network.get_ref(),
            parent.target
        );
        Diagnostic::warning("not-judged", rule.at(network), message)
            .label("the gate sees no address of such a name")
            .help("write `resolve = \"local\"` in the [[dial.parent]], or deny the network there")
    };
    first_network.map(finding).collect()
}

fn is_network(text: &str) -> bool {
    text.parse::<IpNet>().is_ok() || text.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "[[dial.parent]]\nurl = \"http://proxy.acme.example:3128\"\nRESOLVE\n\
        except = [\"direct.example\"]\n\
        [[rule]]\nid = \"no-lab\"\nverdict = \"deny\"\nto.hosts = [\"lab.example\", \"10.9.0.0/16\"]\n\
        [[rule]]\nid = \"names\"\nverdict = \"deny\"\nto.hosts = [\"paste.example\"]\n\
        [[rule]]\nid = \"open\"\nverdict = \"allow\"\nto.hosts = [\"10.2.0.0/16\"]\n\
        grant.addresses = [\"10.2.0.0/16\"]\n";

    fn config(resolve: &str) -> Config {
        let text = RULES.replace("RESOLVE", resolve);
        let (config, findings) = crate::config::load_text("a.toml".as_ref(), &text);
        config.unwrap_or_else(|| panic!("{findings:?}"))
    }

    #[test]
    fn a_denied_network_is_reported_where_a_parent_resolves_names() {
        let found = unjudged(&config(""));
        let [finding] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(
            finding.message,
            "`10.9.0.0/16` is not denied to names that the parent proxy.acme.example:3128 resolves"
        );
        assert!(unjudged(&config("resolve = \"local\"")).is_empty());
    }

    #[test]
    fn a_parent_resolves_names_that_it_is_for_and_no_addresses() {
        let config = config("");
        let resolves = |authority: &str| {
            let target = Target::from_connect(authority.as_bytes()).unwrap();
            resolving(&config, &target, Category::Unknown).is_some()
        };
        assert!(resolves("a.example:443"));
        assert!(!resolves("direct.example:443"));
        assert!(!resolves("192.0.2.1:443"));
    }
}
