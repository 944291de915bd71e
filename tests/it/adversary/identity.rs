//! Ways at the identity: which repository, which session, which tool call.

use std::os::unix::fs::chown;

use serde_json::json;

use crate::kit::{Line, Lines, Outcome, TIERS, allow_more, read_log};

use super::scene::{HOST, Scene, User, is_root};

const WAYS: &str = include_str!("identity.py");
/// The session that the adversary would like to be.
const OTHER: &str = "0197a000-0000-7000-8000-00000000000e";
const OWN: &str = "0197a000-0000-7000-8000-00000000000a";
const WEB: &str = "https://forge.example/acme/web.git";
const OPEN: &str = "https://forge.example/acme/open.git";

fn run(scene: &Scene, options: &[&str], command: &[&str]) -> Outcome {
    let words = scene.exec(options, command);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    scene.program(&words).run()
}

/// The token of another command, which has ended.
fn stolen(scene: &Scene) -> String {
    let print = ["sh", "-c", "printf %s \"$TIDEGATE_TOKEN\""];
    let outcome = run(scene, &["--session", OTHER], &print).succeeded();
    assert!(outcome.stdout.len() > 20, "{outcome:#?}");
    outcome.stdout
}

/// What is wrong with the line about a way; nothing where the adversary got nothing by it.
/// A caller names its channel in its username: a label, which decides nothing.
fn wrong(way: &str, line: &Line) -> Option<String> {
    let session = line.text("session.id");
    let other = session == OTHER && line.text("tidegate.session.trust") != "none";
    let address = line.text("client.address") == "10.9.8.7";
    let what = [
        (other, "it is taken for the other session"),
        (address, "it has chosen its address"),
    ];
    let what = what.iter().find(|(wrong, _)| *wrong)?.1;
    Some(format!("{way}: {what}: {line:?}"))
}

fn identity(options: &[&str]) {
    for user in User::all() {
        let scene = Scene::new(user);
        if !scene.can() {
            continue;
        }
        let more = json!({ "other": OTHER, "stolen": stolen(&scene) });
        scene.script(WAYS, &more, &more);
        let options = [&["--session", OWN], options].concat();
        let outcome = run(&scene, &options, &["python3", "try.py", "jailed.json"]).succeeded();
        let lines = read_log(&scene.gate("records/decisions.jsonl")).named("decision");
        let of = |way: &str| {
            let host = format!("{way}.example.net");
            lines
                .iter()
                .find(|line| line.text("server.address") == host)
        };
        let own = of("own").unwrap_or_else(|| panic!("no control: {outcome:#?}"));
        assert_eq!(own.text("session.id"), OWN, "{own:?}");
        assert_eq!(own.text("tidegate.session.trust"), "verified", "{own:?}");
        // The reports of tool calls: its own session's are taken (as asserted), no other's.
        let said = |way: &str, state: &str| {
            let row = format!("\"way\": \"{way}\", \"state\": \"{state}\"");
            outcome.stdout.contains(&row)
        };
        assert!(said("hook", "got"), "no control: {outcome:#?}");
        assert!(said("hook-of-other", "held"), "{user:?}: {outcome:#?}");
        let ways = [
            "name",
            "bare-name",
            "stolen",
            "stolen-own-name",
            "changed",
            "header",
            "forwarded",
            "channel",
        ];
        let tried: Vec<_> = ways
            .iter()
            .filter_map(|way| Some((way, of(way)?)))
            .collect();
        assert!(tried.len() >= 5, "{outcome:#?}");
        let wrong: Vec<_> = tried
            .iter()
            .filter_map(|(way, line)| wrong(way, line))
            .collect();
        assert!(wrong.is_empty(), "{user:?} {options:?}: {wrong:#?}");
    }
}

#[test]
fn a_command_is_taken_for_nothing_but_itself() {
    identity(&[]);
}

#[test]
fn a_jailed_command_is_taken_for_nothing_but_itself() {
    identity(&["--jail"]);
}

/// What an earlier session, or any process of the user, did to the working copy, and the variables
/// that the next run begins with.
const COPIES: [(&str, &str, &[&str]); 13] = [
    ("remote set-url", "git remote set-url origin $OPEN", &[]),
    ("insteadOf", "git config url.$OPEN.insteadOf $WEB", &[]),
    (
        "a second URL",
        "git config --replace-all remote.origin.url $OPEN; git remote set-url --add origin $WEB",
        &[],
    ),
    (
        "another remote first",
        "git remote rename origin old; git remote add origin $OPEN",
        &[],
    ),
    (
        "the remote of the branch",
        "git remote add open $OPEN; git config branch.main.remote open",
        &[],
    ),
    (
        "an included file",
        "git config -f more remote.origin.url $OPEN; git config --unset remote.origin.url; git config include.path ../more",
        &[],
    ),
    (
        ".git as a link",
        "git init -q ../other; git -C ../other remote add origin $OPEN; mv .git ../kept; ln -s ../other/.git .git",
        &[],
    ),
    (
        ".git as a file",
        "git init -q ../other; git -C ../other remote add origin $OPEN; mv .git ../kept; echo gitdir: ../other/.git >.git",
        &[],
    ),
    (
        "commondir",
        "git init -q ../other; git -C ../other remote add origin $OPEN; echo ../../other/.git >.git/commondir",
        &[],
    ),
    (
        "a worktree of another",
        "git init -q ../other; cd ../other; git remote add origin $OPEN; git commit -q --allow-empty -m x; mv ../web/.git ../kept; git worktree add -q -f ../web/w; mv ../web/w/.git ../web/.git",
        &[],
    ),
    (
        "GIT_DIR",
        "git init -q ../other; git -C ../other remote add origin $OPEN",
        &["GIT_DIR=../other/.git"],
    ),
    (
        "GIT_CONFIG_COUNT",
        "true",
        &[
            "GIT_CONFIG_COUNT=1",
            "GIT_CONFIG_KEY_0=remote.origin.url",
            "GIT_CONFIG_VALUE_0=https://forge.example/acme/open.git",
        ],
    ),
    (
        "the user's own settings",
        "git config --global url.$OPEN.insteadOf $WEB",
        &[],
    ),
];

/// A working copy of `web`, in a scene whose policy lets the tier of `open` reach more.
fn copy(user: User, workspace: bool) -> Scene {
    let scene = Scene::new(user);
    let rule = allow_more("open", HOST, scene.origin.port(), "from.tiers = [\"open\"]");
    let tiers = format!(
        "{TIERS}\n[[repository]]\nmatch = \"forge.example/acme/open\"\ntier = \"open\"\n\
         [[repository]]\nmatch = \"forge.example/acme/web\"\ntier = \"restricted\"\n"
    );
    scene.write("home/gate/tiers.toml", &tiers);
    scene.write("home/gate/rules.toml", &rule);
    if workspace {
        let path = scene.web("");
        let path = path.to_string_lossy();
        let path = path.trim_end_matches('/');
        let text =
            format!("[[workspace]]\npath = \"{path}\"\nrepository = \"forge.example/acme/open\"\n");
        scene.write("home/gate/rules.d/workspace.toml", &text);
    }
    scene.hand_over();
    // What a copy says tightens what the mapping says: in the control they agree.
    let origin = if workspace { OPEN } else { WEB };
    let git = format!("git init -q -b main && git remote add origin {origin}");
    scene.program(&["sh", "-c", &git]).run().succeeded();
    scene
}

/// Whether the next run has the tier of `open`.
fn is_open(scene: &Scene, variables: &[&str]) -> bool {
    next_run(scene, variables).stdout.contains("hello")
}

fn next_run(scene: &Scene, variables: &[&str]) -> Outcome {
    let url = format!("http://{HOST}:{}/", scene.origin.port());
    let mut words = vec!["env"];
    words.extend(variables);
    let exec = scene.exec(&[], &["curl", "-sS", &url]);
    words.extend(exec.iter().map(String::as_str));
    scene.program(&words).run()
}

#[test]
fn the_operator_s_mapping_gives_a_repository() {
    next_run(&copy(User::Me, true), &[]).showed("hello");
}

#[test]
fn a_working_copy_gives_no_tier_that_is_looser() {
    let mut wrong = Vec::new();
    for (name, change, variables) in COPIES {
        let scene = copy(User::Me, false);
        let change = format!(
            "export OPEN={OPEN} WEB={WEB}; export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@a.example GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@a.example; {change}"
        );
        scene.program(&["bash", "-ec", &change]).run().succeeded();
        if is_open(&scene, variables) {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_folder_of_another_user_above_the_working_copy_gives_no_repository() {
    if !is_root() {
        eprintln!("NOT TESTED HERE: folders of two users: run as root");
        return;
    }
    let scene = copy(User::Nobody, false);
    let script = "mv .git ../kept";
    scene.program(&["sh", "-c", script]).run().succeeded();
    let home = scene.path("home");
    let git = |words: &[&str]| {
        crate::kit::Program::new("git", &home)
            .within(&home)
            .args(["-c", "safe.directory=*"])
            .args(words)
            .run()
            .succeeded()
    };
    git(&["init", "-q", "-b", "main"]);
    git(&["remote", "add", "origin", OPEN]);
    chown(home.join(".git"), Some(12_345), Some(12_345)).expect("an owner");
    assert!(!is_open(&scene, &[]), "another user's folder was believed");
}
