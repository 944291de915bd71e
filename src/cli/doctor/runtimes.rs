//! Tests which installed programs use the proxy: each runs against a test proxy on loopback.
//!
//! Each program gets the variables that are set here, with the test proxy as their value; unset
//! variables stay unset. The program requests a name below `.invalid`, which never exists (RFC
//! 6761).

mod catcher;
mod tried;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use super::report::Item;
use super::surroundings::Surroundings;

use catcher::Catcher;
use tried::{Ended, run};

/// A program to test.
struct Runtime {
    name: &'static str,
    /// Its possible names.
    programs: &'static [&'static str],
    /// Its arguments; `{url}` and `{folder}` are replaced.
    words: &'static [&'static str],
    /// Variables that prevent any other request.
    variables: &'static [(&'static str, &'static str)],
    fix: &'static str,
}

const HERE: &str = "eval \"$(tidegate env)\", and look for a proxy in its own settings";

const RUNTIMES: [Runtime; 10] = [
    Runtime {
        name: "curl",
        programs: &["curl"],
        words: &["-sS", "-m", "8", "-o", "/dev/null", "{url}"],
        variables: &[],
        fix: HERE,
    },
    Runtime {
        name: "wget",
        programs: &["wget"],
        words: &["-q", "-T", "8", "-t", "1", "-O", "/dev/null", "{url}"],
        variables: &[],
        fix: "export https_proxy=\"$HTTPS_PROXY\" (wget reads lower case only)",
    },
    Runtime {
        name: "git",
        programs: &["git"],
        words: &["ls-remote", "{url}x.git"],
        variables: &[("GIT_TERMINAL_PROMPT", "0")],
        fix: HERE,
    },
    Runtime {
        name: "npm",
        programs: &["npm"],
        words: &[
            "view",
            "x",
            "--registry={url}",
            "--fetch-retries=0",
            "--cache={folder}",
        ],
        variables: &[("npm_config_update_notifier", "false")],
        fix: HERE,
    },
    Runtime {
        name: "pip",
        programs: &["pip", "pip3"],
        words: &[
            "download",
            "--no-deps",
            "--retries=0",
            "-d{folder}",
            "--index-url={url}",
            "x",
        ],
        variables: &[("PIP_DISABLE_PIP_VERSION_CHECK", "1")],
        fix: HERE,
    },
    Runtime {
        name: "cargo",
        programs: &["cargo"],
        words: &["search", "x", "--index", "sparse+{url}"],
        variables: &[("CARGO_NET_RETRY", "0")],
        fix: HERE,
    },
    Runtime {
        name: "go",
        programs: &["go"],
        words: &["list", "-m", "example.com/x@latest"],
        variables: &[
            ("GOPROXY", "{url}"),
            ("GOFLAGS", ""),
            ("GOPRIVATE", ""),
            ("GONOPROXY", ""),
        ],
        fix: HERE,
    },
    Runtime {
        name: "node",
        programs: &["node"],
        words: &["-e", "fetch('{url}').catch(() => process.exit(1))"],
        variables: &[],
        fix: "export NODE_USE_ENV_PROXY=1 (22.21, 24 and later), or tidegate exec --jail",
    },
    Runtime {
        name: "python",
        programs: &["python3", "python"],
        words: &[
            "-c",
            "import urllib.request; urllib.request.urlopen('{url}', timeout=8)",
        ],
        variables: &[],
        fix: HERE,
    },
    Runtime {
        name: "java",
        programs: &["java"],
        words: &["{folder}/Ask.java", "{url}"],
        variables: &[],
        fix: "set JAVA_TOOL_OPTIONS as `tidegate env` does, or tidegate exec --jail",
    },
];

const JAVA: &str = "class Ask { public static void main(String[] a) throws Exception { \
    new java.net.URL(a[0]).openConnection().getInputStream(); } }\n";

/// Runs the installed programs.
pub(super) fn look(around: &Surroundings) -> Vec<Item> {
    let found: Vec<(&Runtime, PathBuf)> = RUNTIMES
        .iter()
        .filter_map(|runtime| {
            let path = runtime
                .programs
                .iter()
                .find_map(|name| around.program(name))?;
            Some((runtime, path))
        })
        .collect();
    if found.is_empty() {
        return Vec::new();
    }
    if super::proxy::variable(around).is_none() {
        return vec![Item::unknown(
            "runtimes",
            "all",
            "not tried: no variable names a proxy",
        )];
    }
    let (catcher, folder) = match Catcher::start().and_then(|it| Ok((it, Folder::make()?))) {
        Ok(both) => both,
        Err(error) => {
            return vec![Item::unknown(
                "runtimes",
                "all",
                format!("not tried: {error}"),
            )];
        }
    };
    let (catcher, folder) = (&catcher, folder.0.as_path());
    thread::scope(|scope| {
        let tried: Vec<_> = found
            .iter()
            .map(|(runtime, path)| {
                scope.spawn(move || runtime.try_out(path, around, catcher, folder))
            })
            .collect();
        tried
            .into_iter()
            .filter_map(|tried| tried.join().ok())
            .collect()
    })
}

impl Runtime {
    fn try_out(
        &self,
        path: &Path,
        around: &Surroundings,
        catcher: &Catcher,
        folder: &Path,
    ) -> Item {
        let host = format!("{}.tidegate.invalid", self.name);
        let filled = |text: &str| {
            text.replace("{url}", &format!("https://{host}/"))
                .replace("{folder}", &folder.display().to_string())
        };
        let mut command = Command::new(path);
        command
            .args(self.words.iter().map(|word| filled(word)))
            .envs(redirected(around, catcher.port()))
            .envs(
                self.variables
                    .iter()
                    .map(|(name, value)| (*name, filled(value))),
            )
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let why = match run(&mut command, || catcher.saw(&host)) {
            Ended::Asked => return Item::fine("runtimes", self.name, "asks the proxy"),
            Ended::Itself => "ended without a request to the proxy",
            Ended::Late => "sent no request to the proxy in time, and was stopped",
            Ended::Never => "cannot be run",
        };
        Item::finding("runtimes", self.name, format!("{why} ({})", path.display())).fix(self.fix)
    }
}

/// Returns the set variables that name a proxy, with the test proxy as their value.
fn redirected(around: &Surroundings, port: u16) -> Vec<(String, String)> {
    let ours = format!("http://127.0.0.1:{port}");
    let mut changed = Vec::new();
    for (name, value) in around.all() {
        let small = name.to_ascii_lowercase();
        let names_proxy = small.ends_with("_proxy") && !small.contains("no_proxy");
        if small == "java_tool_options" {
            changed.push((name.to_owned(), java(value, port)));
        } else if (names_proxy || small == "cargo_http_proxy") && !value.is_empty() {
            changed.push((name.to_owned(), ours.clone()));
        }
    }
    changed
}

/// Returns the options of a JVM, with the test proxy in place of theirs.
fn java(options: &str, port: u16) -> String {
    let option = |word: &str| match word.split_once('=') {
        Some((name, _)) if name.ends_with(".proxyHost") => format!("{name}=127.0.0.1"),
        Some((name, _)) if name.ends_with(".proxyPort") => format!("{name}={port}"),
        _ => word.to_owned(),
    };
    let words: Vec<String> = options.split_whitespace().map(option).collect();
    words.join(" ")
}

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn make() -> std::io::Result<Self> {
        let name = format!("tidegate-doctor-{}", uuid::Uuid::now_v7().simple());
        let folder = Self(std::env::temp_dir().join(name));
        std::fs::create_dir(&folder.0)?;
        std::fs::write(folder.0.join("Ask.java"), JAVA)?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
