//! Environment variables that name sockets, agents and displays outside the jail.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Variables that name a socket, an agent, a display or a multiplexer outside the jail.
const NAMES: [&str; 27] = [
    "ALACRITTY_SOCKET",
    "CONTAINER_HOST",
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "DISPLAY",
    "DOCKER_HOST",
    "EMACS_SERVER_FILE",
    "EMACS_SOCKET_NAME",
    "GNOME_KEYRING_CONTROL",
    "GPG_AGENT_INFO",
    "I3SOCK",
    "KITTY_LISTEN_ON",
    "NVIM",
    "NVIM_LISTEN_ADDRESS",
    "PODMAN_HOST",
    "PULSE_SERVER",
    "SESSION_MANAGER",
    "SSH_AUTH_SOCK",
    "STY",
    "SWAYSOCK",
    "SYSTEMD_NOTIFY_SOCKET",
    "NOTIFY_SOCKET",
    "TMUX",
    "TMUX_PANE",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "ZELLIJ",
];
/// Prefixes of further such variables.
const PREFIXES: [&str; 4] = ["VSCODE_IPC_", "VSCODE_GIT_", "WEZTERM_UNIX_", "LISTEN_FD"];

/// Returns the variables of this process that the command does not get: each names something
/// outside the jail, unless its path is shared.
pub(super) fn removed(shared: &[PathBuf]) -> Vec<OsString> {
    let all = std::env::vars_os();
    all.filter(|(name, value)| leads_out(name) && !is_shared(value, shared))
        .map(|(name, _)| name)
        .collect()
}

fn leads_out(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    NAMES.contains(&&*name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a value is a shared path: `/path`, `unix:/path`, `unix:///path`, `unix:path=/path,…`,
/// `/path,pid,pane`.
fn is_shared(value: &OsStr, shared: &[PathBuf]) -> bool {
    let value = value.to_string_lossy();
    let Some(at) = value.find('/') else {
        return false;
    };
    let path = value.get(at..).unwrap_or_default();
    let path = path.split([',', ';']).next().unwrap_or_default();
    let path = Path::new("/").join(path.trim_start_matches('/'));
    let real = path.canonicalize().unwrap_or(path);
    shared.iter().any(|share| real.starts_with(share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_socket_outside_is_removed_unless_it_is_shared() {
        for name in ["TMUX", "SSH_AUTH_SOCK", "VSCODE_IPC_HOOK_CLI", "NVIM"] {
            assert!(leads_out(OsStr::new(name)), "{name}");
        }
        assert!(!leads_out(OsStr::new("PATH")));
        let shared = [PathBuf::from("/nowhere/bus")];
        for value in [
            "/nowhere/bus",
            "unix:path=/nowhere/bus,guid=1",
            "unix:///nowhere/bus",
            "/nowhere/bus,12,0",
        ] {
            assert!(is_shared(OsStr::new(value), &shared), "{value}");
        }
        for value in ["/nowhere/else", ":0", "unix:path=/nowhere/bus2"] {
            assert!(!is_shared(OsStr::new(value), &shared), "{value}");
        }
    }
}
