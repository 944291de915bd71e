//! Ways through namespaces and the kernel.

use serde_json::json;

use super::scene::{Scene, User};

const WAYS: &str = include_str!("kernel.py");
/// Puts keys where a child finds them, and becomes it.
const KEYRINGS: &str = "
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.syscall(250, 1, None)
for keyring, name in [(-3, b'tidegate-adversary-session'), (-4, b'tidegate-adversary')]:
    libc.syscall(248, b'user', name, b'a secret', ctypes.c_ulong(8), keyring)
libc.syscall(250, 8, -4, -3)
os.execvp(sys.argv[1], sys.argv[1:])
";
/// Namespaces of its own, so that the control changes nothing of the machine's.
const OWN: &str = "mount -t tmpfs none /mnt && exec \"$@\"";
/// What an ordinary user does not do outside either.
const OF_ROOT: [&str; 11] = [
    "make a device",
    "load a program into the kernel",
    "wait for faults of the kernel",
    "listen to the kernel's audit",
    "write a setting of the kernel",
    "name a program that the kernel runs for core dumps",
    "name a program that the kernel runs for events",
    "a release agent of control groups",
    "read the kernel's log",
    "become another user",
    "change the root's folders of programs",
];
/// What a system may not have.
const OPTIONAL: [&str; 7] = [
    "load a module",
    "the magic system request",
    "a socket of a family by socketpair",
    "make a ring",
    "open a file system context",
    "live without a filter of system calls",
    "gain a capability by a program of root",
];

fn scene(user: User) -> Scene {
    let scene = Scene::new(user);
    let control = json!({ "mounted": "/mnt" });
    let jailed = json!({ "mounted": "/etc/resolv.conf" });
    scene.script(WAYS, &control, &jailed);
    scene
}

#[test]
fn a_jailed_command_finds_no_way_through_the_kernel() {
    for user in User::all() {
        let (control, tried) = (scene(user), scene(user));
        if !control.can() {
            continue;
        }
        let keyrings = ["python3", "-c", KEYRINGS];
        let unshare = if user.is_root() {
            ["unshare", "-mnu"]
        } else {
            ["unshare", "-Urmnu"]
        };
        let own = ["sh", "-c", OWN, "sh"];
        let mut found = control.control(&[&keyrings[..], &unshare, &own].concat());
        if !user.is_root() {
            found = found.or(control.control(&keyrings));
        }
        let words = tried.exec(&["--jail"], &["python3", "try.py", "jailed.json"]);
        let mut all = keyrings.to_vec();
        all.extend(words.iter().map(String::as_str));
        let jailed = super::rows::Rows::of(&tried.program(&all).run());
        assert!(jailed.count() >= 45, "{jailed:#?}");
        let mut optional = OPTIONAL.to_vec();
        if !user.is_root() {
            optional.extend(OF_ROOT);
        }
        jailed.held(&tried.who(), &found, &optional);
    }
}
