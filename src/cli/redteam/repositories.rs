//! Repositories of git at the origin: served by `git http-backend`, over smart HTTP.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::origin::status;

/// The time limit for one command of git.
const GIT_TIMEOUT: Duration = Duration::from_secs(20);

/// A repository, and a working copy of it that is one commit ahead.
#[derive(Debug)]
pub(super) struct Repositories {
    folder: PathBuf,
}

impl Repositories {
    /// Makes the repository and the working copy in a folder.
    pub(super) async fn make(folder: &Path) -> anyhow::Result<Self> {
        let made = Self {
            folder: folder.to_owned(),
        };
        let (seed, copy) = (made.folder.join("seed"), made.copy());
        tokio::fs::create_dir_all(&seed).await?;
        git(&seed, &["init", "-q", "-b", "main"]).await?;
        git(&seed, &["commit", "-q", "--allow-empty", "-m", "first"]).await?;
        git(folder, &["clone", "-q", "seed", "copy"]).await?;
        git(&copy, &["commit", "-q", "--allow-empty", "-m", "second"]).await?;
        Ok(made)
    }

    /// The working copy.
    pub(super) fn copy(&self) -> PathBuf {
        self.folder.join("copy")
    }

    /// Makes the repository of a run, at a path of its URL; returns the folder of its repositories.
    pub(super) async fn serve(&self, run: &str, path: &str) -> anyhow::Result<PathBuf> {
        let root = self.folder.join(run);
        let place = root.join(path.trim_start_matches('/'));
        let seed = self.folder.join("seed");
        let words = ["clone", "-q", "--bare"].map(str::to_owned);
        let places = [&seed, &place].map(|path| path.display().to_string());
        let words: Vec<String> = words.into_iter().chain(places).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        git(&self.folder, &words).await?;
        Ok(root)
    }
}

/// Whether a path is one of git's smart HTTP protocol.
pub(super) fn is_git(path: &str) -> bool {
    ["/info/refs", "/git-upload-pack", "/git-receive-pack"]
        .iter()
        .any(|end| path.ends_with(end))
}

/// Runs git without the settings of the user and the system.
async fn git(folder: &Path, words: &[&str]) -> anyhow::Result<()> {
    let mut command = command();
    command.args(words).current_dir(folder);
    let run = timeout(GIT_TIMEOUT, command.output()).await;
    let output = run.context("git takes too long")?.context("git")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "git {}: {said}", words.join(" "));
    Ok(())
}

fn command() -> Command {
    let mut command = Command::new("git");
    command
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .envs(identity())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// The variables of a git without settings.
pub(super) fn identity() -> [(&'static str, &'static str); 7] {
    [
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_AUTHOR_NAME", "redteam"),
        ("GIT_AUTHOR_EMAIL", "redteam@example.com"),
        ("GIT_COMMITTER_NAME", "redteam"),
        ("GIT_COMMITTER_EMAIL", "redteam@example.com"),
    ]
}

/// Answers one request with `git http-backend`.
pub(super) async fn answer(folder: &Path, head: &Parts, body: Bytes) -> Response<Full<Bytes>> {
    match backend(folder, head, body).await {
        Ok(answer) => answer,
        Err(_) => status(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

async fn backend(
    folder: &Path,
    head: &Parts,
    body: Bytes,
) -> anyhow::Result<Response<Full<Bytes>>> {
    let field = |name: &str| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let mut command = command();
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "redteam")
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("REQUEST_METHOD", head.method.as_str())
        .env("PATH_INFO", head.uri.path())
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", field("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", field("content-encoding"))
        .env("GIT_PROTOCOL", field("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let write = async {
        let _ = stdin.write_all(&body).await;
        drop(stdin);
    };
    let both = async { tokio::join!(write, child.wait_with_output()).1 };
    let output = timeout(GIT_TIMEOUT, both).await??;
    cgi(&output.stdout)
}

/// Reads the head and body of a CGI program (RFC 3875 section 6).
fn cgi(text: &[u8]) -> anyhow::Result<Response<Full<Bytes>>> {
    let end = text.windows(4).position(|end| end == b"\r\n\r\n");
    let (head, body) = text.split_at(end.context("no head")?);
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(
        body.get(4..).unwrap_or_default(),
    )));
    for line in str::from_utf8(head)?.lines() {
        let (name, value) = line.split_once(':').context("no field")?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().unwrap_or_default();
            *answer.status_mut() = code.parse()?;
        } else {
            insert(answer.headers_mut(), name, value)?;
        }
    }
    Ok(answer)
}

fn insert(fields: &mut HeaderMap, name: &str, value: &str) -> anyhow::Result<()> {
    let name: HeaderName = name.parse()?;
    fields.insert(name, HeaderValue::from_str(value)?);
    Ok(())
}
