//! What a command in a jail leaves for the next run: files where a policy is looked for, symbolic
//! links that lead elsewhere, the git folder of another repository. Each with what still works as
//! its positive control.

use std::os::unix::fs::symlink;

use crate::contained::World;
use crate::kit::{Outcome, script};
use crate::walls::worlds;

impl World {
    /// Runs `touch ran` in a jail: `begin` is what comes before `exec`, with its variables and its
    /// folder.
    fn tries(&self, begin: &str, options: &str) -> Outcome {
        let named = format!("--config {}", self.path("tidegate.toml").display());
        let named = if options.contains("--config") {
            ""
        } else {
            &named
        };
        self.outside(&format!(
            "{begin} {} exec {named} --jail {options} -- touch ran",
            self.binary.display()
        ))
    }

    #[track_caller]
    fn refuses(&self, begin: &str, options: &str, word: &str) {
        let outcome = self.tries(begin, options);
        assert_eq!(outcome.code, Some(2), "{begin} {options}: {outcome:#?}");
        outcome.showed(word);
        assert!(!self.path("web/ran").exists(), "{begin} {options}: it ran");
    }

    #[track_caller]
    fn runs(&self, begin: &str, options: &str) {
        self.tries(begin, options).succeeded();
        let _ = std::fs::remove_file(self.path("web/ran"));
    }

    fn link(&self, to: &str, at: &str) {
        symlink(to, self.path(at)).expect("a link");
    }
}

#[test]
fn a_policy_that_is_not_there_yet_is_out_of_reach() {
    for world in worlds() {
        for file in [
            ".config/agent/settings",
            ".local/state/other/x",
            ".config/tidegate.old/x",
            "xdg/x",
        ] {
            world.write(file, "");
        }
        let lies = "where the command could read or change it";
        world.refuses("", "--share ~/.config", lies);
        world.refuses("", "--share ~/.config:ro", lies);
        world.refuses("", "--share ~/.local", lies);
        world.refuses("", "--share ~/.local/state", lies);
        world.refuses("cd ~/.config && git init -q &&", "", lies);
        world.refuses("XDG_CONFIG_HOME=$PWD/conf", "", lies);
        world.refuses("XDG_CONFIG_HOME=~/xdg", "--share ~/xdg", lies);
        world.refuses("XDG_CONFIG_HOME=~/xdg", "--share ~/.config", lies);
        world.refuses("TIDEGATE_CONFIG=$PWD/t.toml", "", lies);
        world.refuses("TIDEGATE_CONFIG=t.toml", "", lies);
        // Without any configuration as well: there the built-in policy decides.
        let outcome = world.outside(&format!(
            "{} exec --jail --share ~/.config -- true",
            world.binary.display()
        ));
        assert_eq!(outcome.code, Some(2), "{outcome:#?}");
        world.runs("", "--share ~/.config/agent --share ~/.local/state/other");
        let script = "mkdir -p ~/.config/tidegate && echo x >~/.config/tidegate/tidegate.toml";
        world.with(&[], script).succeeded();
        assert!(!world.path(".config/tidegate").exists());
    }
}

#[test]
fn a_folder_in_which_a_policy_includes_files_is_out_of_reach() {
    for world in worlds() {
        world.write("rules.d/none", "");
        let policy = world.read("tidegate.toml");
        let named = format!("--config {}", world.path("more.toml").display());
        world.write("more.toml", &policy);
        world.runs("", &format!("{named} --share ~/rules.d"));
        world.write(
            "more.toml",
            &format!("include = [\"rules.d/*.toml\"]\n{policy}"),
        );
        let shared = format!("{named} --share ~/rules.d");
        world.refuses("", &shared, "where the command could read or change it");
    }
}

#[test]
fn the_way_to_the_policy_leads_through_nothing_that_the_command_writes() {
    for world in worlds() {
        world.write("web/sub/x", "");
        world.write("other/x", "");
        // Relative paths would lie beside the link, and be refused for that.
        let home = world.path("").display().to_string();
        let policy = world
            .read("tidegate.toml")
            .replace("unix:", &format!("unix:{home}"))
            .replace("decisions.jsonl", &format!("{home}decisions.jsonl"));
        world.write("tidegate.toml", &policy);
        world.link("../tidegate.toml", "web/t.toml");
        world.link("..", "web/current");
        world.link("../tidegate.toml", "other/t.toml");
        world.hand_over();
        let leads = "where the command could make it lead elsewhere";
        world.refuses("", "--config t.toml", leads);
        world.refuses("", "--config current/tidegate.toml", leads);
        world.refuses("", "--config sub/../../tidegate.toml", leads);
        world.refuses("cd sub &&", "--config ../../tidegate.toml", leads);
        world.refuses("", "--config ~/other/t.toml --share ~/other", leads);
        world.write("real.toml", "");
        world.link("../real.toml", "web/part.toml");
        world.write(
            "more.toml",
            &format!("include = [\"web/part.toml\"]\n{policy}"),
        );
        world.refuses("", "--config ~/more.toml", leads);
        world.runs("", "--config ../tidegate.toml");
        world.runs("", "--config ~/other/t.toml");
    }
}

#[test]
fn a_link_of_an_earlier_run_shows_nothing() {
    for world in worlds() {
        world.write(".ssh/id", "a key\n");
        world.write("victim/bin/x", "a key\n");
        world.write(".local/share/app/auth", "a key\n");
        world.write("p1/bin/x", "");
        world.write("p1/real/bin/x", "plain\n");
        world.write(".local/share/tool/x", "plain\n");
        world.write(".local/bin/x", "");
        world.link("../.ssh", "p1/.venv");
        world.link("../../.ssh/id", "p1/bin/a");
        world.link("../../.local/share/app/auth", "p1/bin/b");
        world.link("../.ssh", "p1/lib");
        world.link("../victim", "p1/cargo");
        world.link("../share/tool/x", ".local/bin/y");
        world.hand_over();
        let look = "bash -c 'cat ~/.ssh/id ~/victim/bin/x ~/.local/share/app/auth; true'";
        for begin in [
            "VIRTUAL_ENV=~/p1/.venv",
            "PATH=$PATH:$HOME/p1/bin",
            "PATH=$PATH:$HOME/p1/cargo/bin",
            "CARGO_HOME=~/p1/cargo",
            "JAVA_HOME=~/p1/cargo",
        ] {
            let outcome = world.outside(&format!("{begin} $EXEC -- {look}"));
            let outcome = outcome.succeeded();
            assert!(!outcome.shows("a key"), "{begin}: {outcome:#?}");
        }
        let outcome = world.outside("$EXEC -- ~/p1/bin/a; true");
        assert!(!outcome.shows("a key"), "{outcome:#?}");
        // Folders themselves, and links of the home's own tools, are shown.
        let tools = "VIRTUAL_ENV=~/p1/real PATH=$PATH:~/.local/bin $EXEC -- \
                     cat ~/p1/real/bin/x ~/.local/bin/y";
        let outcome = world.outside(tools).succeeded();
        assert_eq!(outcome.stdout, "plain\nplain\n", "{outcome:#?}");
    }
}

#[test]
fn a_link_of_an_earlier_run_chooses_neither_a_share_nor_the_working_copy() {
    for world in worlds() {
        world.write(".ssh/id", "a key\n");
        world.write(".cache/x", "");
        world.write("p1/x", "");
        world.write("payments/x", "");
        world.link("../.ssh", ".cache/pip");
        world.link("../payments", "p1/docs");
        world.link("payments", "mine");
        world.hand_over();
        let leads = "symbolic link";
        world.refuses("", "--share ~/.cache --share ~/.cache/pip:ro", leads);
        world.refuses("", "--share ~/.cache/pip:ro", leads);
        world.refuses("", "--share ~/p1/docs", leads);
        world.refuses("cd ~/p1/docs &&", "", leads);
        world.runs("", "--share ~/mine:ro");
        world.tries("cd ~/mine &&", "").succeeded();
        world.tries("cd -P ~/p1/docs &&", "").succeeded();
    }
}

#[test]
fn the_git_folder_of_another_repository_is_not_written() {
    for world in worlds() {
        let git = "git -c user.name=Ana -c user.email=ana@acme.example";
        let made = world.outside(&format!(
            "{git} worktree add -q ../side && mkdir ../linked ../copied && \
             ln -s ../side/.git ../linked/.git && cp ../side/.git ../copied/.git"
        ));
        made.succeeded();
        let write = "echo x >~/web/.git/hooks/post-checkout";
        for folder in ["linked", "copied"] {
            let tried = world.outside(&format!("cd ../{folder} && $EXEC -- bash -c '{write}'"));
            assert!(!tried.success, "{folder}: {tried:#?}");
            assert!(!world.path("web/.git/hooks/post-checkout").exists());
        }
        world
            .outside(&format!("cd ../side && $EXEC -- bash -c '{write}'"))
            .succeeded();
        assert_eq!(world.read("web/.git/hooks/post-checkout"), "x\n");
    }
}

#[test]
fn a_summary_is_written_into_the_folder_that_was_there_before() {
    for world in worlds() {
        world.write("victim/sum.json", "kept\n");
        world.write("web/res/x", "");
        let sum = ["--summary", "res/sum.json"];
        world.with(&sum, "rm -r res; ln -s ../victim res");
        assert_eq!(world.read("victim/sum.json"), "kept\n");
        // By the link that is there now.
        world.refuses("", "--summary res/sum.json", "is a symbolic link");
        world.write("web/more/x", "");
        world.link("../newly-made", "web/out.json");
        world.refuses("", "--summary out.json", "is a symbolic link");
        assert!(!world.path("newly-made").exists());
        let sum = ["--summary", "more/sum.json"];
        let script = "mv more moved; ln -s ../victim more; ln -s ../victim/sum.json moved/x.json; \
                      ln -sf ../../victim/sum.json moved/sum.json";
        world.with(&sum, script).succeeded();
        assert_eq!(world.read("victim/sum.json"), "kept\n");
        assert!(world.read("web/moved/sum.json").starts_with('{'));
    }
}

#[test]
fn a_program_of_the_gate_lies_nowhere_that_the_command_writes() {
    for world in worlds() {
        if !crate::contained::is_root() || world.user != crate::contained::User::Me {
            eprintln!("NOT TESTED HERE: a program of root in a share: run as root");
            continue;
        }
        let token = world.path("tools/token");
        std::fs::create_dir_all(token.parent().expect("a folder")).expect("a folder");
        script(&token, "echo a:b");
        let policy = world.read("tidegate.toml");
        let parent = format!(
            "{policy}\n[[dial.parent]]\nurl = \"http://127.0.0.1:1\"\n\
             hosts = [\"never.example.com\"]\ncredential-command = [{:?}]\n",
            token.display().to_string()
        );
        world.write("parent.toml", &parent);
        let lies = "where the command could read or change it";
        world.refuses("", "--config ~/parent.toml --share ~/tools", lies);
        world.runs("", "--config ~/parent.toml --share ~/tools:ro");
        world.runs("", "--config ~/parent.toml");
    }
}
