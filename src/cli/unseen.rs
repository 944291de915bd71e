//! Telemetry of agents to the hosts of model APIs. If such a host is not inspected, its tunnel
//! carries both model requests and telemetry, and a rule against telemetry has no effect there.

use crate::name::{Path, Target, Url};
use crate::policy::{Attempt, Facts, Inspect, Policy, Query, Verdict};

/// Telemetry requests of agents to the host of their model API.
const SAMPLES: [&str; 2] = [
    "https://api.anthropic.com/api/event_logging/batch",
    "https://chatgpt.com/backend-api/codex/analytics-events/events",
];

/// The remedy.
pub(super) const NEXT: &str =
    "inspect `model-api`, or start agents with `tidegate env --no-telemetry`";

/// Returns hosts that pass as a tunnel in some tier whose rules would refuse their telemetry.
pub(super) fn telemetry(policy: &Policy) -> Vec<String> {
    let samples = SAMPLES
        .iter()
        .filter_map(|url| Url::parse(url.as_bytes()).ok());
    let unseen = samples.filter(|url| {
        let tiers = policy.tiers();
        tiers
            .iter()
            .any(|tier| passes_unseen(policy, tier, &url.target, &url.path))
    });
    unseen.map(|url| url.target.host.to_string()).collect()
}

fn passes_unseen(policy: &Policy, tier: &str, target: &Target, path: &Path) -> bool {
    let who = policy.who(&Facts {
        listener_tier: Some(tier),
        ..Facts::default()
    });
    let decide = |attempt| {
        policy.decide(&Query {
            who: &who,
            target,
            attempt,
        })
    };
    let tunnel = decide(Attempt::Connect);
    let request = decide(Attempt::Request {
        method: "POST",
        path,
        upgrade: false,
        tls: true,
        request_facts: None,
    });
    let opaque = !matches!(tunnel.inspect, Inspect::Yes);
    tunnel.verdict == Verdict::Allow && opaque && request.verdict == Verdict::Deny
}

#[cfg(test)]
mod tests {
    use crate::app::Loaded;

    use super::*;

    #[test]
    fn the_built_in_policy_lets_telemetry_of_agents_pass_in_tunnels() {
        let loaded = Loaded::new(None, &crate::policy::built_in());
        let hosts = telemetry(loaded.policy.as_ref().unwrap());
        assert_eq!(hosts, ["api.anthropic.com", "chatgpt.com"]);
    }
}
