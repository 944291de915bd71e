//! Ways at the records.

use serde_json::json;

use crate::kit::read_log;

use super::scene::{Scene, User};

const WAYS: &str = include_str!("records.py");

fn scene(user: User, control: bool) -> Scene {
    let scene = Scene::new(user);
    let other = "decisions-0197a000-0000-7000-8000-00000000000f.jsonl";
    for name in [
        "decisions.jsonl.1",
        "decisions.jsonl.2",
        "decisions.jsonl.4",
        "moved.jsonl",
        other,
    ] {
        scene.write(&format!("home/gate/records/{name}"), "{\"old\":1}\n");
    }
    scene.write("home/gate/spare-records/decisions.jsonl", "{\"old\":1}\n");
    if control {
        // No gate writes in the control.
        scene.write("home/gate/records/decisions.jsonl", "{\"old\":1}\n");
    }
    let more = json!({ "spare_records": scene.gate("spare-records") });
    scene.script(WAYS, &more, &more);
    scene
}

#[test]
fn a_jailed_command_touches_no_record() {
    for user in User::all() {
        let (control, tried) = (scene(user, true), scene(user, false));
        if !control.can() {
            continue;
        }
        let control = control.control(&[]);
        let jailed = tried.jailed();
        assert!(jailed.count() >= 13, "{jailed:#?}");
        jailed.held(&tried.who(), &control, &[]);
        let lines = read_log(&tried.gate("records/decisions.jsonl"));
        assert!(!lines.is_empty(), "no records were kept");
    }
}
