//! A wall that is taken away in mid-run, by root from outside: the gate ends the flows.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use tidegate::jail::{WallState, Watch};

use crate::kit::{Line, Outcome, Program, read_log, until};

use super::scene::{HOST, Scene, User, is_root};

/// Opens a tunnel and holds it, until the gate closes it; then asks for another.
const HOLD: &str = r#"
import base64, os, socket, sys, urllib.parse

host, port = sys.argv[1], int(sys.argv[2])
url = urllib.parse.urlsplit(os.environ["http_proxy"])
who = base64.b64encode(f"{url.username}:{url.password}".encode()).decode()

def connect():
    tunnel = socket.create_connection((url.hostname, url.port), 60)
    tunnel.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n"
                   f"Proxy-Authorization: Basic {who}\r\n\r\n".encode())
    return tunnel, tunnel.recv(4096)

tunnel, answer = connect()
print("answer", answer.split(b"\r\n")[0].decode(), flush=True)
tunnel.settimeout(60)
open("held", "w").write(str(os.getpid()))
print("closed", tunnel.recv(100) == b"", flush=True)
try:
    print("again", connect()[1][:15].decode(), flush=True)
except OSError as error:
    print("again refused", flush=True)
"#;

struct Tampered {
    outcome: Outcome,
    lines: Vec<Line>,
}

/// The command in the jail of a gate, as seen from outside: the process below it that holds the
/// tunnel.
fn command_below(gate: &str) -> Option<String> {
    let mut waiting = vec![gate.trim().to_owned()];
    while let Some(pid) = waiting.pop() {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if line.starts_with("python3\0hold.py") {
            return Some(pid);
        }
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let children = std::fs::read_to_string(task.path().join("children"));
            let children = children.unwrap_or_default();
            waiting.extend(children.split_ascii_whitespace().map(str::to_owned));
        }
    }
    None
}

fn outside(words: &[&str]) -> Outcome {
    Program::new(words[0], Path::new("/"))
        .args(&words[1..])
        .run()
}

/// Runs the command that holds a tunnel, and takes a wall away once it does.
fn tampered(user: User, tamper: impl Fn(&str) -> Outcome) -> Option<Tampered> {
    let scene = Scene::new(user);
    if !scene.can() {
        return None;
    }
    scene.write("home/web/hold.py", HOLD);
    scene.hand_over();
    let port = scene.origin.port().to_string();
    let words = scene.exec(&["--jail"], &["python3", "hold.py", HOST, &port]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let command = scene.program(&words);
    let outcome = std::thread::scope(|scope| {
        let ran = scope.spawn(|| command.run());
        until("a tunnel", || {
            scene.web("held").exists() || ran.is_finished()
        });
        let gate = std::fs::read_to_string(scene.web("gate.pid")).unwrap_or_default();
        if let Some(pid) = command_below(&gate) {
            tamper(&pid).succeeded();
        }
        ran.join().expect("a command")
    });
    let lines = read_log(&scene.gate("records/decisions.jsonl"));
    Some(Tampered { outcome, lines })
}

#[track_caller]
fn ends_the_flows(promise: &str, tamper: impl Fn(&str) -> Outcome) {
    if !is_root() {
        eprintln!("NOT TESTED HERE: only root takes a wall away from outside");
        return;
    }
    for user in User::all() {
        let Some(Tampered { outcome, lines }) = tampered(user, &tamper) else {
            continue;
        };
        let said = &outcome.stdout;
        assert!(
            said.contains("answer HTTP/1.1 200"),
            "{user:?}: {outcome:#?}"
        );
        assert!(
            said.contains("closed True\nagain refused"),
            "{user:?}: {outcome:#?}"
        );
        let wanted = format!("the jail no longer holds: {promise}: ");
        assert!(outcome.stderr.contains(&wanted), "{user:?}: {outcome:#?}");
        let lost = lines.iter().find(|line| line.name() == "containment_lost");
        let lost = lost.unwrap_or_else(|| panic!("{user:?}: {lines:#?}"));
        assert!(
            lost.text("tidegate.detail").starts_with(promise),
            "{lost:?}"
        );
    }
}

#[test]
fn an_interface_that_is_added_ends_the_flows() {
    ends_the_flows("network", |pid| {
        let link = [
            "ip", "link", "add", "name", "tamper0", "type", "veth", "peer", "tamper1",
        ];
        outside(&[&["nsenter", "-t", pid, "-n"], &link[..]].concat())
    });
}

/// A call of the C library, made in the view of that process. Its `/proc` shows no process outside,
/// so mount(8) does not work there.
fn in_view(pid: &str, call: &str) -> Outcome {
    let program = format!("import ctypes, sys; sys.exit(ctypes.CDLL(None).{call} != 0)");
    outside(&[
        "nsenter",
        "-t",
        pid,
        "-m",
        "-r",
        "/usr/bin/python3",
        "-c",
        &program,
    ])
}

#[test]
fn a_mount_that_is_added_ends_the_flows() {
    ends_the_flows("files", |pid| {
        in_view(pid, "mount(b'none', b'/tmp', b'tmpfs', 0, None)")
    });
}

#[test]
fn a_mount_that_is_removed_ends_the_flows() {
    ends_the_flows("files", |pid| {
        let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("a table");
        let places = table.lines().filter_map(|line| line.split(' ').nth(4));
        let of_jail = |place: &&str| place.starts_with("/etc/") || place.starts_with("/dev/");
        let places: Vec<&str> = places.filter(of_jail).collect();
        let place = places.last().expect("a mount of the jail's");
        in_view(pid, &format!("umount2(b'{place}', 2)"))
    });
}

/// Files that people and programs outside replace every day: no wall falls by that. The same look
/// still finds a cover that was taken away.
#[test]
fn files_that_are_replaced_outside_are_no_fall_and_a_cover_that_is_removed_is() {
    for user in User::all() {
        let scene = Scene::new(user);
        if !scene.can() {
            continue;
        }
        for name in ["agent.json", "moved.json", "caches/file", ".local/bin/tool"] {
            scene.write(&format!("home/{name}"), "old");
        }
        std::fs::create_dir_all(scene.web("below")).expect("a folder");
        let sockets = ["removed", "renamed", "below/moved", "replaced", "covered"];
        let sockets = sockets.map(|name| UnixListener::bind(scene.web(name)).expect("a socket"));
        scene.write("home/web/wait.py", WAIT);
        scene.hand_over();
        let shares = ["agent.json", "moved.json", "caches", ".local/bin/tool"];
        let shares = shares.map(|name| scene.path("home").join(name).display().to_string());
        let options = shares.iter().flat_map(|share| ["--share", share]);
        let options: Vec<&str> = std::iter::once("--jail").chain(options).collect();
        let words = scene.exec(&options, &["python3", "hold.py"]);
        std::fs::rename(scene.web("wait.py"), scene.web("hold.py")).expect("a script");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let command = scene.program(&words);
        std::thread::scope(|scope| {
            let ran = scope.spawn(|| command.run());
            until("the command", || {
                scene.web("held").exists() || ran.is_finished()
            });
            let gate = std::fs::read_to_string(scene.web("gate.pid")).unwrap_or_default();
            let pid = command_below(&gate).expect("a command");
            let mounts = || std::fs::read_to_string(format!("/proc/{pid}/mountinfo"));
            let watch = Watch::of(pid.parse().expect("a number")).expect("a jail");
            let watch = watch.expect("a jail that lives");
            assert_eq!(watch.look(), WallState::Stand, "{user:?}");
            let before = mounts().expect("a table");
            replace(&scene);
            let after = mounts().expect("a table");
            assert!(before != after && after.contains("//deleted"), "{after}");
            let look = watch.look();
            let mut removed = !is_root();
            if look == WallState::Stand && is_root() {
                let covered = scene.web("covered").canonicalize().expect("a socket");
                let covered = covered.display();
                in_view(&pid, &format!("umount2(b'{covered}', 2)")).succeeded();
                let fallen = format!("{:?}", watch.look());
                removed = fallen.contains(&format!("{covered} is no longer mounted"));
            }
            std::fs::write(scene.web("done"), "").expect("a file");
            ran.join().expect("a command");
            assert_eq!(look, WallState::Stand, "{user:?}: {before}\n{after}");
            assert!(removed, "{user:?}: a socket is seen");
        });
        drop(sockets);
    }
}

const WAIT: &str = "
import os
open('held', 'w').close()
while not os.path.exists('done'):
    pass
";

fn replace(scene: &Scene) {
    let home = |name: &str| scene.path("home").join(name);
    let rename = |from: PathBuf, to: PathBuf| std::fs::rename(from, to).expect("another name");
    for name in ["agent.json", ".local/bin/tool"] {
        std::fs::write(home("new"), "new").expect("a file");
        rename(home("new"), home(name));
    }
    rename(home("moved.json"), home("moved.json.bak"));
    rename(home("caches"), home("caches.old"));
    std::fs::remove_file(scene.web("removed")).expect("a socket");
    rename(scene.web("renamed"), scene.web("renamed.old"));
    rename(scene.web("below"), scene.web("beyond"));
    std::fs::remove_file(scene.web("replaced")).expect("a socket");
    drop(UnixListener::bind(scene.web("replaced")).expect("a socket"));
}
