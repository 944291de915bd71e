//! `tidegate doctor` in a jail: a row for each promise, `contained` only where all of them hold.

use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::kit::Outcome;

use super::scene::{Scene, User};

const INHERIT: &str = include_str!("inherit.py");
const PROMISES: [&str; 11] = [
    "network",
    "files",
    "writes",
    "processes",
    "signals",
    "ipc",
    "sockets",
    "descriptors",
    "environment",
    "system-calls",
    "privileges",
];

fn report(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:#?}"))
}

/// The rows of the jail: each promise, whether it holds, and what was said.
fn rows(report: &Value) -> Vec<(String, bool, String)> {
    let items = report["items"].as_array().expect("items").iter();
    let rows = items.filter(|item| item["check"] == "jail").map(|item| {
        let text = |name: &str| item[name].as_str().expect("a text").to_owned();
        let said = text("text");
        let holds = said.starts_with("yes: ");
        assert!(holds || said.starts_with("no: "), "{item}");
        assert_eq!(text("state") == "fine", holds, "{item}");
        (text("subject"), holds, said)
    });
    rows.collect()
}

#[test]
fn the_doctor_in_a_jail_finds_every_promise_kept() {
    for user in User::all() {
        let scene = Scene::new(user);
        if !scene.can() {
            continue;
        }
        let program = scene.path("bin/tidegate").display().to_string();
        let outcome = scene.jail(&[&program, "doctor", "--json"]);
        let report = report(&outcome);
        let rows = rows(&report);
        let broken: Vec<_> = rows.iter().filter(|(_, holds, _)| !holds).collect();
        assert!(broken.is_empty(), "{user:?}: {broken:#?}");
        let names: Vec<&str> = rows.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, PROMISES, "{user:?}");
        assert_eq!(report["contained"], true, "{user:?}: {report:#}");
        assert_eq!(report["probes"]["tcp"], true, "{user:?}: {report:#}");
        assert_eq!(report["probes"]["unix"], true, "{user:?}: {report:#}");
        let text = scene.jail(&[&program, "doctor"]).stdout;
        assert!(!text.contains("not contained"), "{user:?}: {text}");
    }
}

#[test]
fn the_doctor_does_not_believe_a_variable() {
    for user in User::all() {
        let scene = Scene::new(user);
        scene.write("home/web/inherit.py", INHERIT);
        let inherited = json!({
            "descriptors": { "file": 50, "log": 51, "folder": 52, "path": 53, "root": 54,
                "pipe": 59, "eventfd": 60, "memfd": 61, "pidfd": 62, "namespace": 63,
                "inotify": 64, "epoll": 65 },
            "sockets": false,
            "key": scene.gate("keys/inspect.key"),
            "log": scene.gate("records/other.jsonl"),
            "gate": scene.path("home/gate"),
        });
        scene.write("home/web/aims.json", &inherited.to_string());
        let _editor = UnixListener::bind(scene.web("editor.sock")).expect("bound");
        scene.hand_over();
        let gate = format!("TIDEGATE_JAIL={}", scene.path("home/gate").display());
        let program = scene.path("bin/tidegate").display().to_string();
        let words = [
            "env",
            &gate,
            "TMUX=/tmp/x,1,0",
            "python3",
            "inherit.py",
            "aims.json",
        ];
        let outcome = scene
            .program(&[&words[..], &[&program, "doctor", "--json"]].concat())
            .run();
        assert_eq!(outcome.code, Some(1), "{user:?}: {outcome:#?}");
        let report = report(&outcome);
        assert_eq!(report["contained"], false, "{user:?}: {report:#}");
        assert_eq!(report["probes"]["unix"], false, "{user:?}: {report:#}");
        // Nothing outside is asked without a word about it.
        assert_eq!(report["probes"].get("tcp"), None, "{user:?}: {report:#}");
        for (promise, holds, said) in rows(&report) {
            // An ordinary user does not write in the folders of the system; the group of this
            // command is its own.
            let may_hold = promise == "signals" || promise == "writes" && !user.is_root();
            assert!(!holds || may_hold, "{user:?}: {promise}: {said}");
        }
        let text = scene
            .program(&["env", &gate, &program, "doctor"])
            .run()
            .stdout;
        assert!(text.contains("not contained"), "{user:?}: {text}");
    }
}
