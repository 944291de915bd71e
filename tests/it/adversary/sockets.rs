//! Ways by Unix sockets at which something outside listens.

use std::path::Path;

use serde_json::json;

use crate::kit::need;

use super::rows::Rows;
use super::scene::{Scene, User, is_root};

const WAYS: &str = include_str!("sockets.py");
const SERVE: &str = include_str!("serve.py");
const BOTH: &str = include_str!("sockets.sh");

/// The usual places below the home, and below the folder of the session (`run`).
const OF_THE_USER: [(&str, &str); 25] = [
    ("docker", "home/.docker/run/docker.sock"),
    ("docker", "home/run/docker.sock"),
    ("podman", "home/run/podman/podman.sock"),
    ("D-Bus", "home/run/bus"),
    ("systemd", "home/run/systemd/private"),
    ("ssh-agent", "home/.ssh/agent/s.abc.agent"),
    ("ssh-agent", "home/run/ssh-agent.socket"),
    ("ssh control master", "home/.ssh/cm-ana@host.example:22"),
    ("gpg-agent", "home/.gnupg/S.gpg-agent"),
    ("gpg-agent", "home/run/gnupg/S.gpg-agent"),
    ("keyring", "home/run/keyring/control"),
    ("screen", "home/.screen/123.pts-0.host"),
    ("kitty", "home/run/kitty-123"),
    ("nvim", "home/run/nvim.123.0"),
    ("emacs", "home/run/emacs/server"),
    ("emacs", "home/.emacs.d/server/server"),
    ("VS Code", "home/run/vscode-ipc-0197a000.sock"),
    ("VS Code server", "home/.vscode-server/cli.sock"),
    ("JetBrains", "home/.cache/JetBrains/port.sock"),
    ("Wayland", "home/run/wayland-0"),
    ("PipeWire", "home/run/pipewire-0"),
    ("PulseAudio", "home/run/pulse/native"),
    ("another gate", "home/gate/control.sock"),
    ("a socket in the working copy", "home/web/.editor.sock"),
    ("a socket of the home", "home/service.sock"),
];
/// Those of the machine; only root makes them, in a /run and a /tmp of the test's own.
const OF_THE_MACHINE: [(&str, &str); 20] = [
    ("docker", "/run/docker.sock"),
    ("docker by /var/run", "/var/run/docker.sock2"),
    ("containerd", "/run/containerd/containerd.sock"),
    ("podman", "/run/podman/podman.sock"),
    ("CRI-O", "/run/crio/crio.sock"),
    ("D-Bus", "/run/dbus/system_bus_socket"),
    ("systemd", "/run/systemd/private"),
    ("resolved", "/run/systemd/resolve/io.systemd.Resolve"),
    ("snapd", "/run/snapd.socket"),
    ("libvirt", "/run/libvirt/libvirt-sock"),
    ("postgres", "/run/postgresql/.s.PGSQL.5432"),
    ("ssh-agent", "/tmp/ssh-abcdef/agent.123"),
    ("tmux", "/tmp/tmux-UID/default"),
    ("screen", "/run/screen/S-user/123.pts-0.host"),
    ("kitty", "/tmp/kitty-123"),
    ("nvim", "/tmp/nvim.user/abc/nvim.123.0"),
    ("emacs", "/tmp/emacsUID/server"),
    ("VS Code", "/tmp/vscode-ipc-0197a000.sock"),
    ("X11", "/tmp/.X11-unix/X0"),
    ("postgres", "/tmp/.s.PGSQL.5432"),
];
const ABSTRACT: [(&str, &str); 4] = [
    ("X11", "@/tmp/.X11-unix/X0"),
    ("kitty", "@kitty-123"),
    ("D-Bus", "@/tmp/dbus-abcdef"),
    ("containerd shim", "@/containerd-shim/abc.sock"),
];

fn scene(user: User) -> Scene {
    let scene = Scene::new(user);
    let id = user.id().to_string();
    let unique = std::process::id();
    let mut places: Vec<(String, String)> = OF_THE_USER
        .iter()
        .map(|(name, path)| ((*name).to_owned(), scene.path(path).display().to_string()))
        .collect();
    // The names of the network namespace are the whole machine's: one for each run.
    let own = |(name, path): &(&str, &str)| ((*name).to_owned(), format!("{path}-{unique}-{id}"));
    places.extend(ABSTRACT.iter().map(own));
    let mut datagrams = vec![("notify", scene.path("home/run/systemd/notify"))];
    if is_root() {
        let of_machine = OF_THE_MACHINE.iter();
        places.extend(of_machine.map(|(name, path)| {
            let path = path.replace("UID", &id);
            ((*name).to_owned(), path)
        }));
        datagrams.push(("journal", Path::new("/run/systemd/journal/socket").into()));
    } else {
        eprintln!("NOT TESTED HERE: the sockets below /run and /tmp: run as root");
    }
    let more = json!({
        "places": places,
        "datagrams": datagrams,
        "sample": scene.path("home/service.sock"),
        "to_rename": scene.path("home/to-rename.sock"),
    });
    scene.script(WAYS, &more, &more);
    scene.write("outside.json", &more.to_string());
    scene.write("serve.py", SERVE);
    scene.hand_over();
    scene
}

#[test]
fn a_jailed_command_reaches_no_socket_outside() {
    for user in User::all() {
        let scene = scene(user);
        if !scene.can() {
            continue;
        }
        let exec = scene.exec(&["--jail"], &["python3", "try.py", "jailed.json"]);
        let script = scene.path("sockets.sh");
        std::fs::write(&script, BOTH).expect("a file");
        let id = user.id().to_string();
        let root = scene.path("");
        let root = root.to_string_lossy();
        let script = script.display().to_string();
        let mut words = vec!["bash", &script, &id, root.trim_end_matches('/')];
        words.extend(exec.iter().map(String::as_str));
        let home = scene.path("home");
        let mut program = crate::kit::Program::at(&need("env"), &home)
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("XDG_RUNTIME_DIR", home.join("run"));
        if is_root() {
            program = program.args(["unshare", "-m"]);
        }
        let outcome = program.args(&words).run();
        let (control, jailed) = outcome.stdout.split_once("== jailed").unwrap_or_default();
        let control = Rows::from(control).unwrap_or_else(|| panic!("no control: {outcome:#?}"));
        let jailed = Rows::from(jailed).unwrap_or_else(|| panic!("no tries: {outcome:#?}"));
        assert!(jailed.count() >= 35, "{jailed:#?}");
        jailed.held(&scene.who(), &control, &[]);
    }
}
