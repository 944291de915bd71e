//! `tidegate diff`, as a reviewer and as CI run it.

use std::path::Path;

use tempfile::TempDir;

use crate::kit::{Outcome, Program, script};

const TIERS: &str = "[tiers]\norder = [\"standard\", \"restricted\"]\n\
    [tier.standard]\nallow = [\"package-registry:read\"]\n[tier.restricted]\n";

fn rule(id: &str, hosts: &[&str]) -> String {
    format!(
        "\n[[rule]]\nid = \"{id}\"\nverdict = \"allow\"\nfrom.tiers = [\"standard\"]\n\
         to.hosts = {hosts:?}\n"
    )
}

fn write(folder: &Path, name: &str, text: &str) {
    let file = folder.join(name);
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    std::fs::write(file, text).expect("a file");
}

fn diff(folder: &Path, words: &[&str]) -> Outcome {
    Program::new(env!("CARGO_BIN_EXE_tidegate"), folder)
        .args(["diff"])
        .args(words)
        .within(folder)
        .run()
}

fn git(folder: &Path, words: &[&str]) {
    let identity = ["-c", "user.name=ana", "-c", "user.email=ana@acme.example"];
    Program::new("git", folder)
        .args(identity)
        .args(words)
        .within(folder)
        .run()
        .succeeded();
}

/// A folder with two policies.
fn two(before: &str, after: &str) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    write(folder.path(), "a.toml", before);
    write(folder.path(), "b/tidegate.toml", after);
    folder
}

#[test]
fn a_reviewer_reads_what_changes_on_one_screen() {
    let before = format!("{TIERS}{}", rule("web", &["docs.example", "old.example"]));
    let after = format!(
        "{TIERS}{}grant.addresses = [\"10.2.0.0/16\"]\n",
        rule("web", &["docs.example", "*.wiki.example"])
    );
    let folder = two(&before, &after);

    let shown = diff(folder.path(), &["a.toml", "b"]);

    assert_eq!(shown.code, Some(0), "{shown:#?}");
    assert!(shown.stdout.lines().all(|line| line.chars().count() <= 100));
    insta::assert_snapshot!(shown.stdout, @r"
    before    a.toml
    after     b/tidegate.toml

    WIDENS    deny → allow  *.wiki.example, ports 80, 443
      callers tier standard
      before  tier.standard.default (a.toml:3)
      after   web (b/tidegate.toml:8)
      flows   tunnels, http requests, e.g. GET /
      see     tidegate explain x.wiki.example:443 --tier standard --config b/tidegate.toml

    WIDENS    allow, as before  docs.example, ports 80, 443
      callers tier standard
      also    may reach private addresses in 10.2.0.0/16
      before  web (a.toml:8)
      after   web (b/tidegate.toml:8)
      flows   tunnels, http requests, e.g. GET /
      see     tidegate explain docs.example:443 --tier standard --config b/tidegate.toml

    NARROWS   allow → deny  old.example, ports 80, 443
      callers tier standard
      before  web (a.toml:8)
      after   tier.standard.default (b/tidegate.toml:3)
      flows   tunnels, http requests, e.g. GET /
      see     tidegate explain old.example:443 --tier standard --config b/tidegate.toml

    result    both: some flows reach more, some less
    ");
}

#[test]
fn a_requirement_that_does_not_hold_ends_with_1_and_a_counterexample() {
    let folder = two(
        &format!("{TIERS}{}", rule("web", &["docs.example"])),
        &format!("{TIERS}{}", rule("web", &["docs.example", "wiki.example"])),
    );
    let folder = folder.path();
    for what in ["equal", "narrower", "no-wider-in=standard"] {
        let outcome = diff(folder, &["a.toml", "b", "--require", what]);
        assert_eq!(outcome.code, Some(1), "{outcome:#?}");
        outcome
            .showed(&format!("required  {what}: does not hold"))
            .showed("callers in tier standard wiki.example:443");
    }
    for (words, what) in [
        (["b", "a.toml"], "narrower"),
        (["a.toml", "b"], "no-wider-in=restricted"),
    ] {
        let outcome = diff(folder, &[words[0], words[1], "--require", what]);
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    }
    let unknown = diff(folder, &["a.toml", "b", "--require", "no-wider-in=strict"]);
    assert_eq!(unknown.code, Some(2), "{unknown:#?}");
}

#[test]
fn what_a_witness_says_is_what_explain_says() {
    let folder = two(
        &format!("{TIERS}{}", rule("web", &["docs.example"])),
        &format!("{TIERS}{}", rule("web", &["docs.example", "wiki.example"])),
    );
    let shown = diff(folder.path(), &["a.toml", "b", "--json"]).succeeded();
    let value: serde_json::Value = serde_json::from_str(&shown.stdout).expect("JSON");
    assert_eq!(value["relation"], "wider");
    let command = value["changes"][0]["witness"]["command"]
        .as_str()
        .expect("a command");
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let explained = Program::new(env!("CARGO_BIN_EXE_tidegate"), folder.path())
        .args(&words)
        .within(folder.path())
        .run();
    assert_eq!(explained.code, Some(0), "{command}: {explained:#?}");
    explained.showed("allow by web");
}

#[test]
fn revisions_are_compared_as_their_commits_have_them() {
    let folder = TempDir::new().expect("a folder");
    let folder = folder.path();
    git(folder, &["init", "-q", "-b", "main"]);
    write(folder, "tidegate.toml", "include = [\"policy/*.toml\"]\n");
    write(folder, "policy/tiers.toml", TIERS);
    write(folder, "policy/web.toml", &rule("web", &["docs.example"]));
    git(folder, &["add", "."]);
    git(folder, &["commit", "-q", "-m", "one"]);
    git(folder, &["checkout", "-q", "-b", "change"]);
    write(
        folder,
        "policy/web.toml",
        &rule("web", &["docs.example", "wiki.example"]),
    );
    git(folder, &["commit", "-q", "-a", "-m", "two"]);
    // The working copy does not count.
    write(folder, "policy/web.toml", &rule("web", &["*.example"]));

    let shown = diff(folder, &["main..change", "--require", "narrower"]);
    assert_eq!(shown.code, Some(1), "{shown:#?}");
    let shown = shown
        .showed("main:tidegate.toml")
        .showed("change:policy/web.toml:3")
        .showed("wiki.example");
    assert!(!shown.shows("*.example"), "{shown:#?}");

    let one = diff(
        folder,
        &["main:tidegate.toml", "change:tidegate.toml", "--json"],
    )
    .succeeded();
    let same = diff(folder, &["main...change", "--json"]).succeeded();
    let changes = |outcome: &Outcome| {
        let value: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
        value["changes"].as_array().expect("a list").len()
    };
    assert_eq!((changes(&one), changes(&same)), (1, 1));

    let none = diff(folder, &["main..nowhere"]);
    assert_eq!(none.code, Some(4), "{none:#?}");
    none.showed("there is no revision `nowhere`");
}

#[test]
fn a_repository_that_names_programs_starts_none() {
    let folder = TempDir::new().expect("a folder");
    let folder = folder.path();
    git(folder, &["init", "-q", "-b", "main"]);
    write(folder, "tidegate.toml", TIERS);
    write(folder, ".gitattributes", "* filter=evil diff=evil\n");
    git(folder, &["add", "."]);
    git(folder, &["commit", "-q", "-m", "one"]);
    let program = folder.join("evil.sh");
    let ran = folder.join("ran");
    script(&program, &format!("touch {}\ncat", ran.display()));
    let program = program.to_str().expect("a path");
    for key in [
        "core.pager",
        "core.fsmonitor",
        "core.sshCommand",
        "core.hooksPath",
        "filter.evil.smudge",
        "filter.evil.clean",
        "diff.evil.textconv",
        "pager.cat-file",
    ] {
        git(folder, &["config", key, program]);
    }
    let shown = diff(folder, &["HEAD:tidegate.toml", "HEAD:tidegate.toml"]).succeeded();
    shown.showed("equal");
    assert!(!ran.exists(), "a program of the repository ran");
}

#[test]
fn markdown_and_annotations_hold_what_a_policy_can_put_into_them() {
    let folder = two(
        TIERS,
        &format!(
            "{TIERS}{}from.subjects = [\"*`|::error::b\"]\n",
            rule("web", &["docs.example"])
        ),
    );
    let markdown = diff(folder.path(), &["a.toml", "b", "--format", "markdown"]).succeeded();
    let row = markdown
        .stdout
        .lines()
        .find(|line| line.starts_with("| **WIDENS**"));
    let row = row.unwrap_or_else(|| panic!("{markdown:#?}"));
    assert!(row.contains("'\\|::error::b"), "{row}");
    let github = diff(folder.path(), &["a.toml", "b", "--format", "github"]).succeeded();
    let lines: Vec<&str> = github.stdout.lines().collect();
    assert!(
        lines[0].starts_with("::warning file=b/tidegate.toml,line="),
        "{lines:?}"
    );
    assert!(
        lines.iter().all(|line| !line.starts_with("::error")),
        "{lines:?}"
    );
}

#[test]
fn the_script_for_pull_requests_posts_the_difference_and_requires_what_it_is_told() {
    let folder = TempDir::new().expect("a folder");
    let folder = folder.path();
    git(folder, &["init", "-q", "-b", "main"]);
    write(folder, "tidegate.toml", TIERS);
    git(folder, &["add", "."]);
    git(folder, &["commit", "-q", "-m", "one"]);
    git(folder, &["checkout", "-q", "-b", "change"]);
    write(
        folder,
        "tidegate.toml",
        &format!("{TIERS}{}", rule("web", &["docs.example"])),
    );
    git(folder, &["commit", "-q", "-a", "-m", "two"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/ci/policy-diff.sh");
    let programs = Path::new(env!("CARGO_BIN_EXE_tidegate"))
        .parent()
        .expect("a folder");
    let path = std::env::var("PATH").expect("PATH");
    let path = format!("{}:{path}", programs.display());
    let summary = folder.join("summary.md");
    let run = |required: &str| {
        Program::new(script, folder)
            .args(["main", "change"])
            .env("PATH", &path)
            .env("GITHUB_ACTIONS", "true")
            .env("GITHUB_STEP_SUMMARY", summary.to_str().expect("a path"))
            .env("TIDEGATE_REQUIRE", required)
            .within(folder)
            .run()
    };

    let outcome = run("no-wider-in=restricted").succeeded();
    assert!(
        outcome
            .stdout
            .starts_with("::warning file=tidegate.toml,line="),
        "{outcome:#?}"
    );
    let comment = std::fs::read_to_string(folder.join("policy-diff.md")).expect("a comment");
    assert!(comment.contains("| **WIDENS** | deny → allow"), "{comment}");
    assert!(
        std::fs::read_to_string(&summary)
            .expect("a summary")
            .contains("docs.example")
    );
    assert_eq!(run("no-wider-in=standard").code, Some(1));
    for file in ["github.yml", "gitlab.yml"] {
        let file = Path::new(script).with_file_name(file);
        let text = std::fs::read_to_string(file).expect("a file");
        assert!(text.contains("/usr/share/tidegate/ci/policy-diff.sh"));
    }
}

#[test]
fn a_caller_that_leaves_a_tier_counts_as_a_caller_of_it() {
    let before = format!(
        "{TIERS}[[repository]]\nmatch = \"forge.example/acme/*\"\ntier = \"restricted\"\n{}",
        rule("web", &["docs.example"])
    );
    let after = before.replace("tier = \"restricted\"", "tier = \"standard\"");
    let folder = two(&before, &after);
    let words = ["a.toml", "b", "--require", "no-wider-in=restricted"];
    let outcome = diff(folder.path(), &words);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    outcome
        .showed("tier standard (before: restricted); of forge.example/acme/x")
        .showed("no-wider-in=restricted: does not hold");
}

#[test]
fn no_requirement_holds_where_an_exception_is_new() {
    let exception = |host: &str| {
        format!(
            "[[exception]]\nid = \"EXC-1\"\nreason = \"a test\"\nreviewer = \"a@acme.example\"\n\
             expires = 2026-01-01T00:00:00Z\nto.hosts = [\"{host}\"]\n"
        )
    };
    let one = format!("{TIERS}{}", exception("docs.example"));
    let other = format!("{TIERS}{}", exception("wiki.example"));
    for before in [TIERS, &one] {
        let folder = two(before, &other);
        for what in ["equal", "narrower", "no-wider-in=restricted"] {
            let outcome = diff(folder.path(), &["a.toml", "b", "--require", what]);
            assert_eq!(outcome.code, Some(1), "{outcome:#?}");
            outcome
                .showed("not compared: exception EXC-1, which is new or changed")
                .showed("different, and not compared: [exception]");
        }
    }
    let folder = two(&one, TIERS);
    for (what, code) in [("equal", 1), ("narrower", 0)] {
        let outcome = diff(folder.path(), &["a.toml", "b", "--require", what]);
        assert_eq!(outcome.code, Some(code), "{outcome:#?}");
    }
}

#[test]
fn no_requirement_holds_where_rules_bound_an_exception_otherwise() {
    let exception = "[[exception]]\nid = \"EXC-1\"\nreason = \"a test\"\n\
        reviewer = \"a@acme.example\"\nto.hosts = [\"10.2.0.7\", \"docs.example\"]\n\
        expires = 2026-01-01T00:00:00Z\n";
    let deny = |id: &str, host: &str| {
        format!("[[rule]]\nid = \"{id}\"\nverdict = \"deny\"\nto.hosts = [\"{host}\"]\n")
    };
    let plain = format!("{TIERS}{exception}{}", deny("no", "10.2.0.7"));
    let network = format!("{plain}{}", deny("net", "8.8.0.0/16"));
    // Denied by the rule in both, but the exception reaches the address where an allow grants it.
    let granted = rule("net", &["10.2.0.7"]) + "grant.addresses = [\"10.2.0.0/16\"]\n";
    let granted = format!("{plain}{granted}");
    let reason = network.replace("[[exception]]", "# moved\n[[exception]]");
    for (before, after, holds) in [
        (&plain, &granted, false),
        (&network, &plain, false),
        (&network, &reason, true),
        (&plain, &plain, true),
    ] {
        let folder = two(before, after);
        let outcome = diff(
            folder.path(),
            &["a.toml", "b/tidegate.toml", "--require", "narrower"],
        );
        assert_eq!(outcome.code, Some(i32::from(!holds)), "{outcome:#?}");
        if !holds {
            outcome.showed("exception EXC-1, which depends on [rule], which is changed");
        }
    }
}

#[test]
fn no_requirement_holds_where_a_group_of_an_exception_has_another_member() {
    let policy = |member: &str| {
        format!(
            "{TIERS}[group.migration]\nmembers = [\"subject:{member}\"]\n[[exception]]\n\
             id = \"EXC-1\"\nreason = \"a test\"\nreviewer = \"a@acme.example\"\n\
             expires = 2026-01-01T00:00:00Z\nto.hosts = [\"docs.example\"]\n\
             from.groups = [\"migration\"]\n"
        )
    };
    let folder = two(&policy("ana@acme.example"), &policy("*"));
    let words = ["a.toml", "b", "--require", "narrower"];
    let outcome = diff(folder.path(), &words);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    outcome.showed("exception EXC-1, which depends on [group], which is changed");
}

// --- Flows on record ----------------------------------------------------------------------------

/// A denied tunnel in the log, as a gate writes it.
fn denied(day: &str, flow: &str, host: &str) -> String {
    let id = "0195f3c2-0000-7000-8000-000000000001";
    format!(
        "{{\"timestamp\":\"{day}T10:41:07.000001Z\",\"event.name\":\"decision\",\
         \"tidegate.flow.id\":\"{flow}\",\"tidegate.verdict\":\"deny\",\
         \"tidegate.reason\":\"not_allowed\",\"security_rule.name\":\"tier.standard.default\",\
         \"tidegate.tier\":\"standard\",\"tidegate.tier.basis\":\"unattributed\",\
         \"session.id\":\"{id}\",\"vcs.repository.url.full\":\"github.com/acme/web\",\
         \"tidegate.repository.trust\":\"asserted\",\"server.address\":\"{host}\",\
         \"server.port\":443,\"network.protocol.name\":\"connect\"}}\n"
    )
}

/// As [`TIERS`], where callers without a repository are in the first tier.
fn unattributed() -> String {
    TIERS.replacen("[tiers]\n", "[tiers]\nunattributed = \"standard\"\n", 1)
}

/// Two policies, of which the second reaches one host more, and a log beside the first.
fn with_log(log: &str) -> TempDir {
    let tiers = unattributed();
    let folder = two(&tiers, &(tiers.clone() + &rule("wiki", &["wiki.example"])));
    write(folder.path(), "decisions.jsonl", log);
    folder
}

#[test]
fn what_changes_for_flows_on_record_is_told_in_each_form() {
    let flow = "0195f3c2-0000-7000-8000-000000000002";
    let folder = with_log(&format!(
        "{}{}{}",
        denied("1960-01-01", flow, "wiki.example"),
        denied("2026-11-22", flow, "wiki.example"),
        denied("2026-11-22", flow, "other.example"),
    ));
    let compare = |words: &[&str]| {
        let words = [&["a.toml", "b", "--replay", "20000d"], words].concat();
        diff(folder.path(), &words).succeeded()
    };
    compare(&[])
        .showed("replay       2 flows of 1 file, 2026-11-22T10:41:07.000001Z to ")
        .showed("earlier      1 lines before ")
        .showed("same         1")
        .showed("deny → allow   1 flow   wiki.example:443\n   now by  wiki  b/tidegate.toml:")
        .showed("of      1 session · github.com/acme/web (1)")
        .showed(&format!("tidegate explain {flow}\n"))
        .showed("result    wider: ");
    compare(&["--format", "markdown"])
        .showed("| deny → allow | 1 | `wiki.example:443` | `1 session · github.com/acme");
    compare(&["--format", "github"]).showed(
        "::warning title=tidegate replay::deny → allow  1 flow  wiki.example:443; of 1 session",
    );
    let said = compare(&["--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(json["replay"]["changed"], 1, "{json:#}");
    assert_eq!(json["replay"]["earlier"], 1, "{json:#}");
    assert_eq!(json["replay"]["changes"][0]["flow"], flow, "{json:#}");

    // Without a period, and of a file that is named.
    let words = ["a.toml", "b", "--replay", "decisions.jsonl"];
    let all = diff(folder.path(), &words).succeeded();
    all.showed("deny → allow   2 flows   wiki.example:443");
    // The verdicts of both policies are compared, not the one on record.
    diff(folder.path(), &["a.toml", "a.toml", "--replay", "20000d"])
        .succeeded()
        .showed("same         2\nchanged      0\n");
}

#[test]
fn flows_on_record_cannot_begin_a_command_or_a_row() {
    let hostile = "x`|<b>'; touch pwned #\\n::error::x\\u001b[2J\\u202e";
    let line = denied("2026-11-22", hostile, "wiki.example");
    let line = line.replace("github.com/acme/web", hostile);
    let folder = with_log(&line);
    for format in ["text", "markdown", "github"] {
        let words = ["a.toml", "b", "--replay", "20000d", "--format", format];
        let said = diff(folder.path(), &words).succeeded();
        let told = said.shows("deny → allow   1 flow   wiki") || said.shows("| deny → allow | 1 |");
        assert!(
            told || said.shows("deny → allow  1 flow  wiki"),
            "{said:#?}"
        );
        let plain = |letter: char| letter == '\n' || !letter.is_control() && letter != '\u{202e}';
        assert!(said.stdout.chars().all(plain), "{said:#?}");
        assert!(!said.stdout.contains("\n::error"), "{said:#?}");
        assert!(!said.stdout.contains("explain x"), "{said:#?}");
        let rows = said
            .stdout
            .lines()
            .filter(|line| line.starts_with("| deny"));
        for row in rows {
            assert_eq!(row.replace("\\|", "").matches('|').count(), 8, "{row}");
            assert_eq!(row.matches('`').count() % 2, 0, "{row}");
        }
    }
}

#[test]
fn a_log_that_is_none_is_not_read() {
    let folder = with_log("");
    let device = format!("{TIERS}[record]\nfile = \"/dev/zero\"\n");
    write(folder.path(), "a.toml", &device);
    let words = ["a.toml", "b", "--replay", "14d"];
    let said = diff(folder.path(), &words);
    assert_eq!(said.code, Some(2), "{said:#?}");
    assert!(
        said.stderr.contains("there is no log at /dev/zero"),
        "{said:#?}"
    );
    let said = diff(
        folder.path(),
        &["a.toml", "b", "--replay", "14d", "--replay", "1d"],
    );
    assert_eq!(said.code, Some(2), "{said:#?}");
    let said = diff(folder.path(), &["a.toml", "b", "--replay", "none.jsonl"]);
    assert_eq!(said.code, Some(4), "{said:#?}");
}

#[test]
fn the_log_of_a_commit_is_the_one_in_the_working_copy() {
    let folder = TempDir::new().expect("a folder");
    let folder = folder.path();
    git(folder, &["init", "-q", "-b", "main"]);
    write(folder, "policy/tidegate.toml", &unattributed());
    git(folder, &["add", "."]);
    git(folder, &["commit", "-q", "-m", "one"]);
    let log = denied("2026-11-22", "0195f3c2", "wiki.example");
    write(folder, "policy/decisions.jsonl", &log);
    let next = unattributed() + &rule("wiki", &["wiki.example"]);
    write(folder, "policy/tidegate.toml", &next);
    let file = "policy/tidegate.toml";
    let words = [&format!("main:{file}"), file, "--replay", "20000d"];
    diff(folder, &words)
        .succeeded()
        .showed("deny → allow   1 flow   wiki.example:443");
}

#[test]
fn a_commit_whose_includes_name_files_that_are_not_read_is_not_compared() {
    let folder = TempDir::new().expect("a folder");
    let folder = folder.path();
    git(folder, &["init", "-q", "-b", "main"]);
    write(folder, "tidegate.toml", "include = [\"policy/*\"]\n");
    write(folder, "policy/tiers.toml", TIERS);
    write(folder, "notes.md", &rule("web", &["evil.example"]));
    git(folder, &["add", "."]);
    git(folder, &["commit", "-q", "-m", "one"]);
    git(folder, &["checkout", "-q", "-b", "link"]);
    std::os::unix::fs::symlink("../notes.md", folder.join("policy/b.toml")).expect("a link");
    git(folder, &["add", "."]);
    git(folder, &["commit", "-q", "-m", "two"]);
    git(folder, &["checkout", "-q", "-b", "ending", "main"]);
    write(folder, "policy/b.conf", &rule("web", &["evil.example"]));
    git(folder, &["add", "."]);
    git(folder, &["commit", "-q", "-m", "three"]);
    diff(folder, &["main...main"]).succeeded().showed("equal");
    for branch in ["link", "ending"] {
        let outcome = diff(folder, &[&format!("main...{branch}")]);
        assert_eq!(outcome.code, Some(2), "{outcome:#?}");
        assert!(outcome.stderr.contains("reads no links"), "{outcome:#?}");
    }
}
