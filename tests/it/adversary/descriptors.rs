//! Ways by what the starter of `exec --jail` left open.

use serde_json::{Value, json};

use crate::kit::Outcome;

use super::rows::Rows;
use super::scene::{Scene, User};

const WAYS: &str = include_str!("descriptors.py");
const INHERIT: &str = include_str!("inherit.py");
const STREAM: &str = include_str!("stream.py");
const NAMES: [&str; 16] = [
    "file",
    "log",
    "folder",
    "path",
    "root",
    "tcp",
    "listener",
    "unix",
    "udp",
    "pipe",
    "eventfd",
    "memfd",
    "pidfd",
    "namespace",
    "inotify",
    "epoll",
];

fn scene(user: User, sockets: bool) -> Scene {
    let scene = Scene::new(user);
    let numbers = NAMES
        .iter()
        .zip(50..)
        .map(|(name, at)| ((*name).to_owned(), json!(at)));
    let more = json!({
        "descriptors": Value::Object(numbers.collect()),
        "sockets": sockets,
        "key": scene.gate("keys/inspect.key"),
        "log": scene.gate("records/decisions-of-another.jsonl"),
    });
    scene.script(WAYS, &more, &more);
    scene.write("home/web/inherit.py", INHERIT);
    scene.write("home/web/stream.py", STREAM);
    scene.hand_over();
    scene
}

/// Whether the jail was not made because of what was left open, and says so.
fn refused(outcome: &Outcome) -> bool {
    outcome.code == Some(3) && outcome.stderr.contains("descriptor")
}

fn jailed(scene: &Scene, before: &[&str], command: &[&str]) -> Outcome {
    let words = scene.exec(&["--jail"], command);
    let words = words.iter().map(String::as_str);
    let words: Vec<&str> = before.iter().copied().chain(words).collect();
    scene.program(&words).run()
}

#[test]
fn a_jailed_command_has_nothing_that_was_left_open() {
    for user in User::all() {
        let control = scene(user, true);
        if !control.can() {
            continue;
        }
        let found = control.control(&["python3", "inherit.py", "control.json"]);
        for sockets in [true, false] {
            let tried = scene(user, sockets);
            let before = ["python3", "inherit.py", "jailed.json"];
            let outcome = jailed(&tried, &before, &["python3", "try.py", "jailed.json"]);
            if sockets && refused(&outcome) {
                continue;
            }
            let rows = Rows::of(&outcome);
            assert!(rows.count() >= 18, "{rows:#?}");
            rows.held(&tried.who(), &found, &[]);
        }
    }
}

#[test]
fn a_standard_stream_of_a_jailed_command_is_no_socket() {
    let mut wrong = Vec::new();
    for user in User::all() {
        let scene = scene(user, false);
        if !scene.can() {
            continue;
        }
        for kind in ["tcp", "unix"] {
            for number in ["0", "1", "2"] {
                let look = format!(
                    "import os, stat\nopen('said', 'w').write(str(stat.S_ISSOCK(os.fstat({number}).st_mode)))"
                );
                let command = ["python3", "-c", &look];
                let before = ["python3", "stream.py", number, kind];
                scene.program(&[&before[..], &command].concat()).run();
                let said = || {
                    let said = std::fs::read_to_string(scene.web("said")).ok();
                    let _ = std::fs::remove_file(scene.web("said"));
                    said
                };
                assert_eq!(said().as_deref(), Some("True"), "the control");
                let outcome = jailed(&scene, &before, &command);
                let said = said();
                if said.as_deref() != Some("False") && !(said.is_none() && outcome.code == Some(3))
                {
                    wrong.push(format!(
                        "{user:?}: {kind} at {number}: {said:?} {outcome:?}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
