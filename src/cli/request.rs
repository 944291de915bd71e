//! `tidegate request`: an agent follows its own requests for approval, and files one.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::{Value, json};

use super::env::Proxy;
use super::{Answer, admin, print};

/// The host that serves a caller's own requests.
const HOST: &str = "tidegate.internal";
const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum bytes of a response that are read.
const MAX_ANSWER: u64 = 1 << 20;

/// The requests for approval of this session.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Request {
    /// List the requests of this session.
    List(List),
    /// Show one request of this session.
    Show(Show),
    /// File a request: ask a reviewer to allow connections to a host.
    File(File),
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    through: Through,
}

#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// The id of the request.
    id: uuid::Uuid,
    #[command(flatten)]
    through: Through,
}

#[derive(Debug, clap::Args)]
pub(super) struct File {
    /// The host, with its port if that is not 443.
    target: String,
    /// The reason, for the reviewer.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    through: Through,
}

/// The proxy to call.
#[derive(Debug, clap::Args)]
struct Through {
    /// The proxy: http://[USER:SECRET@]HOST:PORT; without one, `tidegate.internal` is called
    /// directly.
    #[arg(long, value_name = "URL", env = "HTTP_PROXY", hide_env_values = true)]
    #[arg(value_parser = Proxy::parse_short)]
    proxy: Option<Proxy>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Request {
    pub(super) fn perform(self) -> Answer {
        let (through, said) = match &self {
            Self::List(list) => (&list.through, list.through.say("GET", "/v1/requests", None)),
            Self::Show(show) => {
                let path = format!("/v1/requests/{}", show.id);
                (&show.through, show.through.say("GET", &path, None))
            }
            Self::File(file) => (&file.through, file.say()),
        };
        let (status, body) = match said {
            Ok(said) => said,
            Err(error) => {
                let error = admin::spoken(error, PATIENCE);
                print::err(&format!("tidegate: the gate does not answer: {error}\n"));
                return Answer::Failed;
            }
        };
        let document: Value = serde_json::from_str(&body).unwrap_or_default();
        if status != 200 {
            let detail = document.get("detail").and_then(Value::as_str);
            let detail = print::clean(detail.unwrap_or(body.trim()), 200);
            print::err(&format!("tidegate: {status}: {detail}\n"));
            return if status == 403 || status == 404 {
                Answer::No
            } else {
                Answer::Wrong
            };
        }
        if through.json {
            print::json(&document);
            return Answer::Yes;
        }
        let listed = document.get("requests").and_then(Value::as_array);
        match listed {
            Some(all) => all.iter().for_each(|request| print::out(&line(request))),
            None => print::out(&line(&document)),
        }
        Answer::Yes
    }
}

impl File {
    fn say(&self) -> io::Result<(u16, String)> {
        let (host, port) = match self.target.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                let port: u16 = port
                    .parse()
                    .map_err(|_| io::Error::other("the port is no number"))?;
                (host, port)
            }
            _ => (self.target.as_str(), 443),
        };
        let body = json!({ "host": host, "port": port, "reason": self.reason }).to_string();
        self.through.say("POST", "/v1/requests", Some(&body))
    }
}

impl Through {
    fn say(&self, method: &str, path: &str, body: Option<&str>) -> io::Result<(u16, String)> {
        let mut head = format!(
            "{method} http://{HOST}{path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n"
        );
        let place = if let Some(proxy) = &self.proxy {
            if let Some(authorization) = proxy.authorization() {
                head = format!("{head}Proxy-Authorization: {authorization}\r\n");
            }
            proxy.place()
        } else {
            head = head.replacen(&format!("http://{HOST}"), "", 1);
            format!("{HOST}:80")
        };
        if let Some(body) = body {
            let length = body.len();
            head = format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n");
        }
        let no_address = || io::Error::other(format!("{place} has no address: set HTTP_PROXY"));
        let address = place.to_socket_addrs()?.next().ok_or_else(no_address)?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{head}\r\n{}", body.unwrap_or_default()).as_bytes())?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
        admin::parse_answer(&answer).ok_or_else(|| io::Error::other("the answer is not HTTP"))
    }
}

/// Formats one request on one line.
fn line(request: &Value) -> String {
    let text = |key: &str| {
        let text = request.get(key).and_then(Value::as_str).unwrap_or_default();
        print::clean(text, 64)
    };
    let port = request
        .get("port")
        .and_then(Value::as_u64)
        .unwrap_or_default();
    let until = text("until");
    let until = if until.is_empty() {
        until
    } else {
        format!("  until {until}")
    };
    format!(
        "{}  {}  {}  {}:{port}{until}\n",
        text("id"),
        text("state"),
        text("operation"),
        text("host"),
    )
}
