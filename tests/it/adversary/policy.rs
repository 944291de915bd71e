//! Ways at the policy: the files of this run, those of the next one, and gates of one's own.

use std::path::Path;

use serde_json::json;

use crate::kit::{Gate, Line, Lines, TIERS, allow, names, read_log, until};

use super::scene::{HOST, REFUSED, Scene, User};

const WAYS: &str = include_str!("policy.py");

/// What ordinary users need a nested jail or the rights of root for.
const OPTIONAL: [&str; 0] = [];

fn scene(user: User) -> Scene {
    let scene = Scene::new(user);
    scene.write("home/own/bin/tidegate", "the program of the next run\n");
    scene.write("home/spare-gate/tidegate.toml", "# a configuration\n");
    scene.write("home/.bashrc", "# as it was\n");
    let port = scene.origin.port();
    let open = format!(
        "{TIERS}{}{}",
        names(&[HOST, REFUSED]),
        allow("all", REFUSED, port)
    );
    let more = json!({
        "next_program": scene.path("home/own/bin/tidegate"),
        "refused_url": format!("http://{REFUSED}:{port}/"),
        "open_policy": open,
    });
    scene.script(WAYS, &more, &more);
    scene
}

#[test]
fn a_jailed_command_changes_no_policy() {
    for user in User::all() {
        let (control, tried) = (scene(user), scene(user));
        if !control.can() {
            continue;
        }
        let control = control.control(&[]);
        let jailed = tried.jailed();
        assert!(jailed.count() >= 20, "{jailed:#?}");
        jailed.held(&tried.who(), &control, &OPTIONAL);
        tried.origin.saw_nothing();
    }
}

/// What a command does to the files of the gate behind which it runs; each says what it is.
const CHANGES: [(&str, &str); 6] = [
    (
        "append to the configuration",
        "cat rule >>../gate/tidegate.toml",
    ),
    (
        "put another file in its place",
        "cat ../gate/tidegate.toml rule >fresh; mv fresh ../gate/tidegate.toml",
    ),
    ("rewrite an include", "cat rule >>../gate/rules.toml"),
    ("add an include", "cp rule ../gate/rules.d/zz.toml"),
    (
        "swap the symbolic link",
        "cp -r ../gate ../other; cat rule >>../other/rules.toml; ln -sfn other ../current",
    ),
    (
        "rename the folder",
        "cp -r ../gate ../other; cat rule >>../other/rules.toml; mv ../gate ../old; mv ../other ../gate",
    ),
];

/// A gate in a copy of the folder that follows its files: the control, and the clock of the test.
fn follows(scene: &Scene, change: &str) {
    let gate = Gate::with(&format!("{TIERS}{}", names(&[HOST, REFUSED])));
    // Twice: each takes at least as long as a gate needs to see that a change has settled.
    for round in [2, 3] {
        let name = format!("x{round}");
        let rule = allow(&name, REFUSED, scene.origin.port());
        gate.rewrite(&format!("{TIERS}{}{rule}", names(&[HOST, REFUSED])));
        until(&format!("a gate that follows its files ({change})"), || {
            gate.records().named("policy_loaded").len() == round
        });
    }
}

#[test]
fn a_command_without_a_jail_does_not_change_the_policy_of_its_own_run() {
    let mut wrong = Vec::new();
    std::thread::scope(|scope| {
        let tried: Vec<_> = CHANGES
            .iter()
            .map(|(name, change)| scope.spawn(|| unchanged(name, change)))
            .collect();
        wrong.extend(tried.into_iter().filter_map(|it| it.join().expect("a try")));
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Changes the files and asks for what they now allow, until a gate that follows its files has long
/// since taken them; the name where that passed.
fn unchanged(name: &str, change: &str) -> Option<String> {
    let scene = Scene::new(User::Me);
    let port = scene.origin.port();
    scene.write("home/web/rule", &allow("x", REFUSED, port));
    let url = format!("http://{REFUSED}:{port}/");
    let script = format!(
        "{change}; touch changed; until test -e taken; do curl -s -o /dev/null {url}; sleep 0.05; done; \
         curl -s -o said -w '%{{http_code}}' {url}"
    );
    let words = scene.exec(&[], &["sh", "-c", &script]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let program = scene.program(&words);
    let outcome = std::thread::scope(|scope| {
        let ran = scope.spawn(|| program.run());
        until("the change", || {
            scene.web("changed").exists() || ran.is_finished()
        });
        follows(&scene, name);
        std::fs::write(scene.web("taken"), "").expect("a file");
        ran.join().expect("a command")
    });
    let loaded = records(&scene).named("policy_loaded").len();
    let passed = outcome.stdout != "403" || loaded != 1 || !scene.origin.requests().is_empty();
    passed.then(|| {
        format!(
            "{name}: {} ({loaded} policies): {}",
            outcome.stdout, outcome.stderr
        )
    })
}

/// The records of the run, wherever the folder is now.
fn records(scene: &Scene) -> Vec<Line> {
    let folders = ["home/gate", "home/old", "home/other"];
    let files = folders.map(|folder| scene.path(folder).join("records/decisions.jsonl"));
    let lines = files
        .iter()
        .map(|path: &std::path::PathBuf| read_log(Path::new(path)));
    lines.max_by_key(Vec::len).unwrap_or_default()
}
