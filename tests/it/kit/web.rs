//! What origins serve to real clients: files, and git over smart HTTP.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use super::{Message, Visit};

/// Files by path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Site {
    files: HashMap<String, (String, Vec<u8>)>,
}

impl Site {
    /// Adds a file.
    #[must_use]
    pub(crate) fn file(mut self, path: &str, kind: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files
            .insert(path.to_owned(), (kind.to_owned(), bytes.into()));
        self
    }

    /// Answers with the files; 404 for every other path.
    pub(crate) fn answers(
        self,
    ) -> impl Fn(&mut Visit, &Message) -> io::Result<()> + Send + Sync + 'static {
        move |visit, request| {
            let path = request.target().split('?').next().unwrap_or_default();
            match self.files.get(path) {
                Some((kind, bytes)) => visit.answer("200 OK", kind, bytes),
                None => visit.answer("404 Not Found", "text/plain", b"no such file"),
            }
        }
    }
}

/// Answers with the repositories below `root`, to be cloned and pushed to.
pub(crate) fn git_backend(
    root: PathBuf,
) -> impl Fn(&mut Visit, &Message) -> io::Result<()> + Send + Sync + 'static {
    move |visit, request| {
        let answer = backend(&root, request)?;
        let split = answer
            .windows(4)
            .position(|end| end == b"\r\n\r\n")
            .expect("a CGI head");
        let head = String::from_utf8_lossy(&answer[..split]).into_owned();
        let body = &answer[split + 4..];
        let status = head
            .lines()
            .find_map(|line| line.strip_prefix("Status: "))
            .unwrap_or("200 OK");
        let mut fields = String::new();
        for line in head.lines().filter(|line| !line.starts_with("Status: ")) {
            fields.extend([line, "\r\n"]);
        }
        let length = body.len();
        visit.say(format!(
            "HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n"
        ))?;
        visit.say(body)
    }
}

/// One run of `git http-backend`: the CGI head and body it printed.
fn backend(root: &PathBuf, request: &Message) -> io::Result<Vec<u8>> {
    let (path, query) = request
        .target()
        .split_once('?')
        .unwrap_or((request.target(), ""));
    let field = |name: &str| request.field(name).unwrap_or_default().to_owned();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("REMOTE_USER", "test")
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("REQUEST_METHOD", request.method())
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", field("content-type"))
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", field("content-encoding"))
        .env("GIT_PROTOCOL", field("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (mut stdin, body) = (child.stdin.take().expect("a stdin"), request.body.clone());
    thread::spawn(move || drop(stdin.write_all(&body)));
    Ok(child.wait_with_output()?.stdout)
}
