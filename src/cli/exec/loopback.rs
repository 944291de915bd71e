//! Services of this machine that a jailed command wants to reach: loopback URLs in variables.
//!
//! In a jail, 127.0.0.1 is the jail's own address. A port in such a variable (a collector of OTLP,
//! a model gateway) is captured like 443: the policy decides, and a refusal is recorded.

use crate::name::Url;

/// Returns the ports of loopback URLs in the values of these variables, except proxy variables: the
/// command gets its own.
pub(super) fn ports<'a>(variables: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<u16> {
    let variables = variables.filter(|(name, _)| !is_of_proxies(name));
    let ports = variables.filter_map(|(_, value)| port(value));
    let mut ports: Vec<u16> = ports.collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn is_of_proxies(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains("proxy") || name.starts_with("tidegate_")
}

fn port(value: &str) -> Option<u16> {
    let url = Url::parse(value.as_bytes()).ok()?;
    url.target.host.loopback().map(|_| url.target.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_loopback_urls_are_captured_but_not_those_of_proxies() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
            (
                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
                "http://localhost:4317/v1/logs",
            ),
            ("ANTHROPIC_BASE_URL", "http://[::1]:8080/"),
            ("HTTPS_PROXY", "http://127.0.0.1:3129"),
            ("TIDEGATE_ADMIN", "http://127.0.0.1:3131"),
            ("PAGE", "https://example.com:8443/"),
            ("TEXT", "127.0.0.1:9999"),
        ];
        assert_eq!(ports(variables.into_iter()), [4317, 4318, 8080]);
    }
}
