//! Ways at the process of the gate.

use serde_json::json;

use super::scene::{DECOY_WORD, Scene, User};

const WAYS: &str = include_str!("process.py");
/// What the kernel or the system may refuse outside as well.
const OPTIONAL: [&str; 6] = [
    "enter its namespaces",
    "freeze its control group",
    "profile it",
    "move its memory",
    "find the files that it has mapped",
    "compare its descriptors",
];

fn scene(user: User) -> Scene {
    let scene = Scene::new(user);
    let config = scene.path("home/current/tidegate.toml");
    let control = json!({ "marker": DECOY_WORD, "parent": "file" });
    let jailed = json!({ "marker": config, "parent": null });
    scene.script(WAYS, &control, &jailed);
    scene
}

#[test]
fn a_jailed_command_reaches_no_process_outside() {
    for user in User::all() {
        let (control, tried) = (scene(user), scene(user));
        if !control.can() {
            continue;
        }
        let control = control.control(&[]);
        let outcome = tried.jail(&["python3", "try.py", "jailed.json"]);
        let jailed = super::rows::Rows::of(&outcome);
        assert!(jailed.count() >= 35, "{jailed:#?}");
        jailed.held(&tried.who(), &control, &OPTIONAL);
        assert_eq!(
            outcome.code,
            Some(0),
            "the gate did not end well: {outcome:#?}"
        );
    }
}
