//! Transcripts of the commands about a policy: `tests/it/transcripts/policy.txt` has each command and what
//! it prints. `TIDEGATE_BLESS=1` writes what is printed now: read the difference before it is committed.

use std::path::PathBuf;

use crate::replay::denied;
use crate::walkthrough::{Desk, Folder, console};

const POLICY: &str = r#"[record]
file = "decisions.jsonl"

[tiers]
order = ["only"]

[tier.only]
default = "deny"

[group.idle]
members = ["subject:*@acme.example"]

[upstream.idle]
min-version = "1.3"

[[rule]]
id      = "web"
verdict = "allow"
to.hosts = ["docs.example.net", "bit.ly"]
reason  = "documentation"
allows  = ["docs.example.net:443"]
denies  = ["files.example.net:443"]

[[never]]
name = "no files"
to.hosts = ["files.example.net"]
verdict = "allow"
"#;

#[test]
fn commands_print_what_their_transcripts_show() {
    let mut folder = Folder::new();
    folder.write("policy.toml", POLICY);
    let next = POLICY.replace("\"bit.ly\"", "\"wiki.example.net\"");
    folder.write("next.toml", &next);
    let broken = POLICY.replace("\"bit.ly\"", "\"files.example.net\"");
    let broken = broken.replace("denies  = [\"files.example.net:443\"]\n", "");
    folder.write("broken.toml", &broken);
    let records = [denied("wiki.example.net"), denied("other.example.net")];
    folder.write("decisions.jsonl", &records.concat());
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/transcripts/policy.txt");
    let golden = std::fs::read_to_string(&file).expect("the transcripts");
    let lines: Vec<&str> = golden.lines().collect();
    let mut wrong = String::new();
    let now = console(&mut folder, "", &lines, &mut wrong);
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(&file, now).expect("the transcripts");
        return;
    }
    assert!(wrong.is_empty(), "TIDEGATE_BLESS=1 writes this:\n{wrong}");
}
