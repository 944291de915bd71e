//! Unix sockets that lead out: their servers act outside the confinement.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::report::Item;
use super::surroundings::Surroundings;

/// What the server of a socket does for its clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Power {
    /// It starts programs outside.
    Runs,
    /// It gives access to a key or a screen.
    Lends,
}

/// Lists every socket that answers.
pub(super) fn look(around: &Surroundings) -> Vec<Item> {
    let mut seen = Vec::new();
    let mut items = Vec::new();
    for (name, power, path) in places(around) {
        // /var/run is a link to /run: the same socket is listed once.
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        if UnixStream::connect(&path).is_ok() && !seen.contains(&real) {
            items.push(item(name, power, &path.display().to_string()));
            seen.push(real);
        }
    }
    if items.is_empty() {
        items.push(Item::fine("sockets", "unix", "none that leads out answers").probe("unix"));
    }
    items
}

fn item(name: &str, power: Power, path: &str) -> Item {
    let subject = format!("{name} {path}");
    match power {
        Power::Runs => Item::open(
            "sockets",
            subject,
            "starts programs outside for every client",
        ),
        Power::Lends => Item::finding(
            "sockets",
            subject,
            "gives every client access to a key or a screen outside",
        ),
    }
    .fix(fix(name))
    .probe("unix")
}

fn fix(name: &str) -> &'static str {
    match name {
        "docker" | "containerd" | "podman" => {
            "do not mount the engine's socket here; unset DOCKER_HOST CONTAINER_HOST"
        }
        "ssh-agent" => "unset SSH_AUTH_SOCK, and keep its folder out of this place",
        "gpg-agent" => "gpgconf --kill gpg-agent, or keep its folder out of this place",
        "x11" | "wayland" => "unset DISPLAY WAYLAND_DISPLAY, and keep their sockets out",
        "dbus" => "unset DBUS_SESSION_BUS_ADDRESS, and keep its socket out of this place",
        _ => "unset the variable that names it, and keep the socket out of this place",
    }
}

/// Returns the usual paths of the sockets, from variables and conventions.
pub(super) fn places(around: &Surroundings) -> Vec<(&'static str, Power, PathBuf)> {
    let mut all: Vec<(&'static str, Power, PathBuf)> = vec![
        ("docker", Power::Runs, "/run/docker.sock".into()),
        ("docker", Power::Runs, "/var/run/docker.sock".into()),
        (
            "containerd",
            Power::Runs,
            "/run/containerd/containerd.sock".into(),
        ),
        ("podman", Power::Runs, "/run/podman/podman.sock".into()),
        ("dbus", Power::Runs, "/run/dbus/system_bus_socket".into()),
    ];
    let mut add = |name, power, path: Option<String>| {
        all.extend(path.map(|path| (name, power, PathBuf::from(path))));
    };
    let variable = |name: &str| around.get(name).map(str::to_owned);
    let below = |base: &str, path: &str| Some(format!("{}/{path}", around.get(base)?));
    let engine = |name: &str| Some(around.get(name)?.strip_prefix("unix://")?.to_owned());
    add("docker", Power::Runs, engine("DOCKER_HOST"));
    add("podman", Power::Runs, engine("CONTAINER_HOST"));
    add(
        "docker",
        Power::Runs,
        below("XDG_RUNTIME_DIR", "docker.sock"),
    );
    add(
        "podman",
        Power::Runs,
        below("XDG_RUNTIME_DIR", "podman/podman.sock"),
    );
    add(
        "dbus",
        Power::Runs,
        around.get("DBUS_SESSION_BUS_ADDRESS").and_then(bus),
    );
    add("dbus", Power::Runs, below("XDG_RUNTIME_DIR", "bus"));
    for name in [
        "VSCODE_IPC_HOOK_CLI",
        "VSCODE_GIT_IPC_HANDLE",
        "REMOTE_CONTAINERS_IPC",
    ] {
        add("editor", Power::Runs, variable(name));
    }
    add("ssh-agent", Power::Lends, variable("SSH_AUTH_SOCK"));
    add(
        "gpg-agent",
        Power::Lends,
        below("HOME", ".gnupg/S.gpg-agent"),
    );
    add(
        "gpg-agent",
        Power::Lends,
        below("XDG_RUNTIME_DIR", "gnupg/S.gpg-agent"),
    );
    add("x11", Power::Lends, around.get("DISPLAY").and_then(screen));
    let wayland = around.get("WAYLAND_DISPLAY").unwrap_or("wayland-0");
    add("wayland", Power::Lends, below("XDG_RUNTIME_DIR", wayland));
    all
}

/// `unix:path=/run/user/1000/bus,guid=…`
fn bus(address: &str) -> Option<String> {
    let path = address.strip_prefix("unix:path=")?;
    Some(path.split([',', ';']).next()?.to_owned())
}

/// `:0` and `:0.0`; a screen of another host has no socket here.
fn screen(display: &str) -> Option<String> {
    let number = display.strip_prefix(':')?.split('.').next()?;
    Some(format!("/tmp/.X11-unix/X{number}"))
}
