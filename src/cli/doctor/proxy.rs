//! Checks that a proxy is configured and answers.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::app::Loaded;
use crate::cli::admin;

use super::report::Item;
use super::surroundings::Surroundings;

const PATIENCE: Duration = Duration::from_secs(3);
const HERE: &str = "eval \"$(tidegate env)\"";
/// The variables that name the proxy, in order of precedence.
const NAMES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];

/// Returns the variable that names the proxy, and its value.
pub(super) fn variable(around: &Surroundings) -> Option<(&'static str, &str)> {
    NAMES
        .iter()
        .find_map(|name| Some((*name, around.get(name)?)))
}

/// Checks the variables, the proxy and its admin listener.
pub(super) fn look(
    asked: Option<&str>,
    configured: bool,
    loaded: &Loaded,
    around: &Surroundings,
) -> Vec<Item> {
    let mut items = variables(around);
    let listener = loaded
        .config
        .as_ref()
        .and_then(|config| config.listen.proxy.first());
    let url = asked
        .map(str::to_owned)
        .or_else(|| variable(around).map(|(_, url)| url.to_owned()))
        .or_else(|| {
            listener
                .filter(|_| configured)
                .map(|listener| format!("http://{}", listener.address))
        });
    items.extend(url.map(|url| answers(&url)));
    items.push(ready(configured, loaded));
    items
}

fn variables(around: &Surroundings) -> Vec<Item> {
    if variable(around).is_none() {
        let text = "no variable names a proxy";
        return vec![Item::finding("proxy", "HTTPS_PROXY", text).fix(HERE)];
    }
    let differ = |(upper, lower): &(&str, &str)| around.get(upper) != around.get(lower);
    let pairs = [("HTTPS_PROXY", "https_proxy"), ("HTTP_PROXY", "http_proxy")];
    let finding = |(upper, lower)| {
        Item::finding(
            "proxy",
            upper,
            format!("differs from {lower}: clients read one of them"),
        )
        .fix(HERE)
    };
    pairs.into_iter().filter(differ).map(finding).collect()
}

/// Returns the authority of a proxy's URL, without credentials, which must not be shown.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or_default();
    rest.rsplit_once('@')
        .map_or(rest, |(_, authority)| authority)
}

fn answers(url: &str) -> Item {
    let place = authority(url);
    let spoken = speak(place, url.starts_with("https://"));
    match spoken.map_err(|error| admin::spoken(error, PATIENCE)) {
        Ok(()) => Item::fine("proxy", place, "answers"),
        Err(error) => Item::finding("proxy", place, format!("does not answer: {error}"))
            .fix("tidegate run --config FILE, or correct HTTPS_PROXY"),
    }
}

/// Fails if no HTTP server is at the address; for a proxy behind TLS, only checks the connection.
fn speak(place: &str, tls: bool) -> io::Result<()> {
    let address = place
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::other("the name has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    if tls {
        return Ok(());
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "OPTIONS * HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n"
    )?;
    let mut begin = [0; 7];
    stream.read_exact(&mut begin)?;
    if &begin == b"HTTP/1." {
        return Ok(());
    }
    Err(io::Error::other("the server that answers is not a proxy"))
}

fn ready(configured: bool, loaded: &Loaded) -> Item {
    let admin = loaded
        .config
        .as_ref()
        .and_then(|config| config.listen.admin.clone());
    let address = admin.unwrap_or_else(admin::default_address);
    let place = admin::show_address(&address);
    match admin::ask(&address, "/readyz") {
        Ok((200, _)) => Item::fine("proxy", format!("admin {place}"), "ready"),
        Ok((status, body)) => Item::finding(
            "proxy",
            format!("admin {place}"),
            format!("not ready: {status} {}", body.trim()),
        )
        .fix("tidegate health, and the log of the gate"),
        Err(error) if configured => Item::finding(
            "proxy",
            format!("admin {place}"),
            format!("does not answer: {error}"),
        )
        .fix("tidegate run --config FILE"),
        // The agent cannot reach it, as intended.
        Err(_) => Item::unknown(
            "proxy",
            format!("admin {place}"),
            "not to be reached from here",
        ),
    }
}
