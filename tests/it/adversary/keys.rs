//! Ways at the secret files of the operator.

use serde_json::json;

use super::scene::{KEY_FILES, Scene, User};

const WAYS: &str = include_str!("keys.py");
/// What only root does outside, and what the namespaces of the system may not let it do.
const OPTIONAL: [&str; 6] = [
    "read a key from the disk itself",
    "read the memory of the machine",
    "open a key by a file handle",
    "read a key by /proc/1/root",
    "read a key after unmounting what covers it",
    "read a key by a descriptor of any process",
];

fn scene(user: User) -> Scene {
    let scene = Scene::new(user);
    for name in [
        "keys/inspect.key.old",
        "keys/spare.key",
        "keys-to-move/moved.key",
    ] {
        scene.write(&format!("home/gate/{name}"), "an old key\n");
    }
    let more = json!({ "key_files": KEY_FILES });
    scene.script(WAYS, &more, &more);
    scene
}

#[test]
fn a_jailed_command_reads_no_key() {
    for user in User::all() {
        let (control, tried) = (scene(user), scene(user));
        if !control.can() {
            continue;
        }
        let control = control.control(&[]);
        let jailed = tried.jailed();
        assert!(jailed.count() >= 25, "{jailed:#?}");
        jailed.held(&tried.who(), &control, &OPTIONAL);
    }
}
