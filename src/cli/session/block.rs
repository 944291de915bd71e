//! The lines in `CLAUDE_ENV_FILE`, which a shell reads before every command of the agent.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use crate::config;

use super::super::env::Proxy;
use super::super::shell::Shell;

const BEGIN: &str = "# tidegate: begin\n";
const END: &str = "# tidegate: end\n";
/// Placeholder for the span of the command, which a shell replaces when it reads the line.
const SPAN: &str = ".tidegate-span";
/// The start of the line with the URL of the proxy.
const URL: &str = "tidegate_url=";
/// The folder in which Claude Code keeps a folder of such files for each session.
const SESSION_FOLDERS: &str = "session-env";
/// Time limit of the connection that shows whether a gate runs on this host.
const GATE_TIMEOUT: Duration = Duration::from_millis(500);

/// Makes a separate span for each command, in the trace of the agent if there is one. The span
/// begins with the process id of the shell, so the gate can distinguish parallel commands.
const MAKE_SPAN: &str = r#"tidegate_id=''
[ -r /proc/sys/kernel/random/uuid ] && IFS= read -r tidegate_id < /proc/sys/kernel/random/uuid
[ -n "$tidegate_id" ] || tidegate_id=$(uuidgen 2>/dev/null | tr 'A-F' 'a-f')
tidegate_span=''
case "$tidegate_id" in
  ????????-????-????-????-????????????)
    tidegate_a=${tidegate_id%%-*}; tidegate_r=${tidegate_id#*-}
    tidegate_b=${tidegate_r%%-*}; tidegate_r=${tidegate_r#*-}
    tidegate_c=${tidegate_r%%-*}; tidegate_r=${tidegate_r#*-}
    tidegate_t=$tidegate_a$tidegate_b$tidegate_c${tidegate_r%%-*}${tidegate_r#*-}
    case "${TRACEPARENT:-}" in
      *[!0-9a-f-]*|00-00000000000000000000000000000000-*) ;;
      00-????????????????????????????????-????????????????-??)
        tidegate_r=${TRACEPARENT#00-}; tidegate_t=${tidegate_r%%-*} ;;
    esac
    tidegate_span=".00-$tidegate_t-$(printf '%08x' "$$")$tidegate_a-01" ;;
esac
"#;
const UNSET: &str = "unset tidegate_id tidegate_span tidegate_t tidegate_a tidegate_b tidegate_c \
                     tidegate_r\n";

/// Returns the block for a session's commands; without a token only the proxy, so that no flow
/// bypasses it.
pub(super) fn block(proxy: &Proxy, session: &str, token: Option<&str>) -> String {
    let mut text = String::from(BEGIN);
    let credentials = token.map(|token| format!("{session}.bash{SPAN}:{token}"));
    if credentials.is_some() {
        text.push_str(MAKE_SPAN);
    }
    let known = credentials.is_some();
    let proxy = proxy.with_credentials(credentials);
    // An agent passes the block to its shell with every command, so the URL occurs only once.
    let url = Shell::Bash.export(URL.trim_end_matches('='), &proxy.url());
    let url = url.strip_prefix("export ").unwrap_or(&url);
    text.push_str(&url.replace(SPAN, r#"'"$tidegate_span"'"#));
    text.push('\n');
    let quoted = format!("'{}'", proxy.url());
    for (name, value) in proxy.variables() {
        let line = Shell::Bash.export(name, &value);
        let line = line.replace(&quoted, r#""$tidegate_url""#);
        text.push_str(&line.replace(SPAN, r#"'"$tidegate_span"'"#));
        text.push('\n');
    }
    if let Some(token) = token {
        // A process that a command starts inherits the variables, but does not act for the agent.
        text.push_str(&Shell::Bash.export("TIDEGATE_TOKEN", token));
        text.push('\n');
    }
    text.push_str("unset tidegate_url\n");
    if known {
        text.push_str(UNSET);
    }
    text + END
}

/// Returns the file that Claude Code reads in the session `session` for the hook whose file is
/// `path`, if that is another file. Claude Code 2.1.112 names the file of the session that it started
/// with; after `--continue` it reads the file of the conversation.
pub(super) fn file_of_session(path: &Path, session: &str) -> Option<PathBuf> {
    let (folder, name) = (path.parent()?, path.file_name()?);
    let folders = folder.parent()?;
    let is_known = folders.file_name()? == SESSION_FOLDERS && Uuid::try_parse(session).is_ok();
    let other = folders.join(session);
    (is_known && other != folder).then(|| other.join(name))
}

/// Whether the block in the file is of another gate that still runs: an agent behind that gate may
/// read the file.
pub(super) fn is_of_another_gate(path: &Path, proxy: &Proxy) -> bool {
    let text = config::read(path).unwrap_or_default();
    let mut lines = text.lines();
    let Some(url) = lines.find_map(|line| line.strip_prefix(URL)) else {
        return false;
    };
    let place = url.rsplit(['@', '/']).next().unwrap_or_default();
    let place = place.trim_matches('\'');
    let runs = |address| TcpStream::connect_timeout(&address, GATE_TIMEOUT).is_ok();
    place != proxy.place() && place.parse().map_or(true, runs)
}

/// Replaces the earlier block in the file, and makes its folder; other lines stay unchanged.
pub(super) fn write(path: &Path, block: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let before = if path.exists() {
        config::read(path)?
    } else {
        String::new()
    };
    let kept = match (before.find(BEGIN), before.find(END)) {
        (Some(from), Some(to)) if from < to => {
            let (head, tail) = (before.get(..from), before.get(to + END.len()..));
            format!("{}{}", head.unwrap_or_default(), tail.unwrap_or_default())
        }
        _ => before.clone(),
    };
    let gap = if kept.is_empty() || kept.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    if kept == before {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        return file.write_all(format!("{gap}{block}").as_bytes());
    }
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    fs::write(path, format!("{kept}{gap}{block}"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const SESSION: &str = "0195f3c2-7e1a-7bbb-8ccc-0123456789ab";

    /// Returns `HTTPS_PROXY` in a shell that has read the block.
    fn seen(shell: &str, trace: &str) -> String {
        let proxy = Proxy::parse("http://127.0.0.1:3128").unwrap();
        let script = format!(
            "set -u\n{}printf '%s %s' \"$$\" \"$HTTPS_PROXY\"",
            block(&proxy, SESSION, Some("a.b.c"))
        );
        let output = Command::new(shell)
            .args(["-c", &script])
            .env("TRACEPARENT", trace)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn each_command_has_a_span_with_the_process_of_its_shell() {
        for shell in ["sh", "bash"] {
            let (one, two) = (seen(shell, ""), seen(shell, ""));
            let (pid, url) = one.split_once(' ').unwrap();
            let pid: u32 = pid.parse().unwrap();
            let rest = url.strip_prefix(&format!("http://{SESSION}.bash.00-"));
            let (trace, rest) = rest.unwrap().split_once('-').unwrap();
            assert_eq!(trace.len(), 32);
            assert!(rest.starts_with(&format!("{pid:08x}")), "{url}");
            assert!(rest.ends_with("-01:a.b.c@127.0.0.1:3128"), "{url}");
            assert_ne!(one, two);
        }
    }

    #[test]
    fn the_token_stands_in_the_block_only_where_it_has_to() {
        let proxy = Proxy::parse("http://127.0.0.1:3128").unwrap();
        let token = format!("a.{}.c", "b".repeat(1000));
        let block = block(&proxy, SESSION, Some(&token));
        assert!(block.len() < 12 * 1024, "{} bytes", block.len());
    }

    #[test]
    fn the_trace_of_the_agent_goes_on_and_a_hostile_one_does_not() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let url = seen("sh", &format!("00-{trace}-00f067aa0ba902b7-01"));
        assert!(url.contains(&format!(".00-{trace}-")), "{url}");
        for hostile in ["00-$(id)-00f067aa0ba902b7-01", "x", "00-'\"`id`"] {
            let url = seen("sh", hostile);
            assert!(!url.contains("id"), "{url}");
            assert_eq!(url.split('-').count(), 8, "{url}");
        }
    }

    #[test]
    fn a_resumed_session_has_a_file_of_its_own() {
        let path = Path::new("/home/ana/.claude/session-env/a/sessionstart-hook-0.sh");
        let other = file_of_session(path, SESSION).unwrap();
        let folder = other.parent().unwrap();
        assert_eq!(folder.file_name().unwrap(), SESSION);
        assert_eq!(file_of_session(&other, SESSION), None);
        assert_eq!(file_of_session(path, "../../x"), None);
        let elsewhere = Path::new("/tmp/env/a/sessionstart-hook-0.sh");
        assert_eq!(file_of_session(elsewhere, SESSION), None);
    }

    #[test]
    fn the_block_of_another_gate_stays_while_that_gate_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("env");
        let ours = Proxy::parse("http://127.0.0.1:3128").unwrap();
        assert!(!is_of_another_gate(&path, &ours));
        let gate = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = Proxy::parse(&format!("http://{}", gate.local_addr().unwrap())).unwrap();
        write(&path, &block(&theirs, SESSION, Some("a.b.c"))).unwrap();
        assert!(is_of_another_gate(&path, &ours));
        assert!(!is_of_another_gate(&path, &theirs));
        write(&path, &block(&theirs, SESSION, None)).unwrap();
        assert!(is_of_another_gate(&path, &ours));
        drop(gate);
        assert!(!is_of_another_gate(&path, &ours));
    }

    #[test]
    fn a_block_is_replaced_and_what_others_wrote_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("env");
        fs::write(&path, "export A=1").unwrap();
        let proxy = Proxy::parse("http://127.0.0.1:3128").unwrap();
        write(&path, &block(&proxy, SESSION, Some("old.old.old"))).unwrap();
        write(&path, &block(&proxy, SESSION, Some("new.new.new"))).unwrap();
        let text = config::read(&path).unwrap();
        assert!(text.starts_with("export A=1\n# tidegate: begin\n"));
        assert!(!text.contains("old.old") && text.contains("new.new.new"));
        assert_eq!(text.matches(BEGIN).count(), 1);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
