//! Reads single values: addresses, durations, sizes, words. Each finding has a correct example.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;
use toml::Spanned;

use crate::diag::{Diagnostic, Place, closest};
use crate::name::{Host, Url};
use crate::policy::source::Placed;
pub(super) use crate::policy::source::Size;

/// Reads `IP:PORT`.
pub(super) fn socket_address(
    text: &str,
    place: Place,
    findings: &mut Vec<Diagnostic>,
) -> Option<SocketAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        findings.push(bad_address(
            place,
            text,
            "an address and a port",
            address_help(text),
        ));
    }
    parsed
}

/// Reads `IP:PORT`, or `IP` with the default `port`.
pub(super) fn address_with_port(
    text: &str,
    port: u16,
    place: Place,
    findings: &mut Vec<Diagnostic>,
) -> Option<SocketAddr> {
    let alone = || {
        text.parse()
            .ok()
            .map(|address| SocketAddr::new(address, port))
    };
    let parsed = text.parse().ok().or_else(alone);
    if parsed.is_none() {
        let help = format!("write e.g. `10.0.0.53` or `10.0.0.53:{port}`");
        findings.push(bad_address(place, text, "an address", help));
    }
    parsed
}

/// Reads `IP`.
pub(super) fn address(text: &str, place: Place, findings: &mut Vec<Diagnostic>) -> Option<IpAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        let help = "write an address alone, e.g. `10.2.0.7` or `2001:db8::7`";
        findings.push(bad_address(place, text, "an address", help));
    }
    parsed
}

/// Reads networks, or single addresses.
pub(super) fn networks<T>(
    section: &Placed<T>,
    texts: &[Spanned<String>],
    findings: &mut Vec<Diagnostic>,
) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for written in texts {
        let text = written.get_ref();
        let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
        if let Some(network) = text.parse().ok().or_else(alone) {
            networks.push(network);
            continue;
        }
        let message = format!("`{}` is no network", shortened(text));
        let finding = Diagnostic::error("bad-address", section.at(written), message);
        findings.push(finding.help("write e.g. `10.2.0.0/16` or `10.2.0.7`"));
    }
    networks
}

/// Whether a URL is of a host by https, with a name, as certificates name hosts.
pub(super) fn is_https(url: &Url) -> bool {
    url.tls && matches!(url.target.host, Host::Name(_))
}

fn bad_address(place: Place, text: &str, wanted: &str, help: impl Into<String>) -> Diagnostic {
    let message = format!("`{}` is not {wanted}", shortened(text));
    Diagnostic::error("bad-address", place, message).help(help)
}

fn address_help(text: &str) -> String {
    let port = text
        .rsplit(':')
        .next()
        .and_then(|port| port.parse::<u16>().ok());
    match port {
        _ if text.parse::<IpAddr>().is_ok() => "say the port too, e.g. `127.0.0.1:3128`".to_owned(),
        Some(port) if text.starts_with("localhost:") => {
            format!("names are not looked up here: write `127.0.0.1:{port}`")
        }
        Some(port) if text.starts_with(':') => {
            format!("say the address too: `127.0.0.1:{port}` for this machine only")
        }
        _ => "write e.g. `127.0.0.1:3128` or `[::1]:3128`".to_owned(),
    }
}

/// Reads a duration with units (`10 s`, `1 h 30 min`), within bounds.
pub(super) fn duration(
    text: &str,
    bounds: (Duration, Duration),
    place: Place,
    findings: &mut Vec<Diagnostic>,
) -> Option<Duration> {
    let Some(parsed) = parse_duration(text) else {
        let message = format!("`{}` is not a duration", shortened(text));
        let help = "write a number and a unit, e.g. `10 s`, `5 min`, `1 h`, `250 ms`";
        findings.push(Diagnostic::error("bad-duration", place, message).help(help));
        return None;
    };
    let (least, most) = bounds;
    let within = Duration::try_from(parsed)
        .ok()
        .filter(|it| (least..=most).contains(it));
    if within.is_none() {
        findings.push(out_of_range(
            place,
            shortened(text),
            Spoken(least),
            Spoken(most),
        ));
    }
    within
}

/// Parses a duration with units, or whole days of 24 hours: `1 h 30 min`, `14d`.
pub fn parse_duration(text: &str) -> Option<SignedDuration> {
    text.parse().ok().or_else(|| days(text))
}

/// Reads a number of days of 24 hours.
fn days(text: &str) -> Option<SignedDuration> {
    let ends = ["days", "day", "d"];
    let number = ends.iter().find_map(|end| text.strip_suffix(end))?;
    let number: u16 = number.trim_end().parse().ok()?;
    Some(SignedDuration::from_hours(i64::from(number) * 24))
}

/// Reads a whole number within bounds.
pub(super) fn number<T: TryFrom<i64> + Copy + PartialOrd + fmt::Display>(
    written: i64,
    bounds: (T, T),
    place: Place,
    findings: &mut Vec<Diagnostic>,
) -> Option<T> {
    let (least, most) = bounds;
    let within = T::try_from(written)
        .ok()
        .filter(|number| (least..=most).contains(number));
    if within.is_none() {
        findings.push(out_of_range(place, written, least, most));
    }
    within
}

/// Reads a size in bytes within bounds.
pub(super) fn size(
    written: &Size,
    bounds: (u64, u64),
    place: Place,
    findings: &mut Vec<Diagnostic>,
) -> Option<u64> {
    let (least, most) = bounds;
    let Some(bytes) = written.bytes() else {
        let message = format!("`{written}` is not a size");
        let help = "write a number and a unit, e.g. `64 KiB`, `256 MiB`, `1 GiB`";
        findings.push(Diagnostic::error("bad-size", place, message).help(help));
        return None;
    };
    if (least..=most).contains(&bytes) {
        return Some(bytes);
    }
    findings.push(out_of_range(place, written, Bytes(least), Bytes(most)));
    None
}

fn out_of_range(
    place: Place,
    written: impl fmt::Display,
    least: impl fmt::Display,
    most: impl fmt::Display,
) -> Diagnostic {
    Diagnostic::error("out-of-range", place, format!("{written} is out of range"))
        .help(format!("write something from {least} to {most}"))
}

/// Reads one of a few words.
pub(super) fn word<T: Copy>(
    text: &str,
    words: &[(&str, T)],
    place: Place,
    findings: &mut Vec<Diagnostic>,
) -> Option<T> {
    let found = words
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, meaning)| *meaning);
    if found.is_none() {
        let message = format!("`{}` means nothing here", shortened(text));
        let known: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let mut help = format!("write {}", known.join(" or "));
        if let Some(meant) = closest(text, words.iter().map(|(word, _)| *word)) {
            help = format!("did you mean `{meant}`? {help}");
        }
        findings.push(Diagnostic::error("unknown-word", place, message).help(help));
    }
    found
}

/// Returns the beginning of a text, for a message.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Formats a duration for people.
struct Spoken(Duration);

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match millis {
            _ if millis >= 3_600_000 && millis.is_multiple_of(3_600_000) => {
                write!(f, "{} h", millis / 3_600_000)
            }
            _ if millis >= 60_000 && millis.is_multiple_of(60_000) => {
                write!(f, "{} min", millis / 60_000)
            }
            _ if millis >= 1_000 && millis.is_multiple_of(1_000) => {
                write!(f, "{} s", millis / 1_000)
            }
            _ => write!(f, "{millis} ms"),
        }
    }
}

/// Formats a size for people.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let fits = |(_, shift): &(&str, u32)| self.0 > 0 && self.0.trailing_zeros() >= *shift;
        match units.into_iter().find(fits) {
            Some((unit, shift)) => write!(f, "{} {unit}", self.0 >> shift),
            None => write!(f, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let bytes = |text: &str| Size::Text(text.to_owned()).bytes();
        assert_eq!(bytes("256 MiB"), Some(256 << 20));
        assert_eq!(bytes("64KiB"), Some(65_536));
        assert_eq!(bytes("3 kB"), Some(3_000));
        assert_eq!(bytes("0 B"), Some(0));
        for wrong in [
            "",
            "12",
            "MiB",
            "1.5 GiB",
            "-1 B",
            "9999999999999 GiB",
            "1 mib",
            "1 é",
        ] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
        assert_eq!(Size::Bytes(-1).bytes(), None);
    }

    #[test]
    fn bounds_are_spoken_in_round_units() {
        let said = [1, 250, 10_000, 90_000, 300_000, 3_600_000, 5_400_000];
        let said = said.map(|millis| Spoken(Duration::from_millis(millis)).to_string());
        assert_eq!(
            said,
            ["1 ms", "250 ms", "10 s", "90 s", "5 min", "1 h", "90 min"]
        );
        assert_eq!(Bytes(64 << 10).to_string(), "64 KiB");
        assert_eq!(Bytes(0).to_string(), "0 B");
    }

    #[test]
    fn a_help_for_an_address_fits_what_was_written() {
        assert!(address_help("localhost:3128").contains("`127.0.0.1:3128`"));
        assert!(address_help(":80").contains("`127.0.0.1:80`"));
        assert!(address_help("127.0.0.1").contains("port"));
        assert!(address_help("what").contains("[::1]:3128"));
    }
}
