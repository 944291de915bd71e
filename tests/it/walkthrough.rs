//! The walkthroughs of the manual, step by step as a reader would do them.
//!
//! A block whose first line is ```` ```toml FILE ```` or ```` ```sh FILE ```` is written to that file, or added to it. In a block ```` ```console ```` each line that begins with `$ ` is run by `sh`, and the
//! lines below it are what it prints on standard output and error, in order; a line `…` stands for any
//! lines. A block ```` ```console agent ```` is what an agent runs. `TIDEGATE_BLESS=1` writes what is printed now: read the difference before it is committed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a reader works.
pub(crate) trait Desk {
    /// Writes a file, or adds to it.
    fn write(&mut self, name: &str, text: &str);

    /// Runs a line in a shell; what it printed. `voice` is who runs it, where the block says that.
    fn run(&mut self, voice: &str, line: &str) -> String;
}

/// An empty folder, which is also the home.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }
}

impl Desk for Folder {
    fn write(&mut self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        let before = std::fs::read_to_string(&path).map_or_else(|_| String::new(), |it| it + "\n");
        std::fs::write(path, before + text).expect("a file");
    }

    fn run(&mut self, _: &str, line: &str) -> String {
        let program = Path::new(env!("CARGO_BIN_EXE_tidegate"));
        let path = format!(
            "{}:/usr/local/bin:/usr/bin:/bin",
            program.parent().expect("a folder").display()
        );
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {line}")])
            .current_dir(self.0.path())
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.0.path())
            .env("LANG", "C.UTF-8")
            .env("TERM", "dumb")
            .stdin(Stdio::null())
            .output()
            .expect("a shell");
        let text = String::from_utf8_lossy(&output.stdout);
        let home = self.0.path().display().to_string();
        text.replace(&home, "/home/ana")
    }
}

/// Whether what was printed is what the manual shows.
fn agrees(shown: &[&str], printed: &[&str]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((&"…", rest)) => (0..=printed.len()).any(|skip| agrees(rest, &printed[skip..])),
        Some((line, rest)) => printed.split_first().is_some_and(|(first, others)| {
            first.trim_end() == line.trim_end() && agrees(rest, others)
        }),
    }
}

/// Runs one block of a console; the block as it is today, and what differs.
pub(crate) fn console(
    desk: &mut dyn Desk,
    voice: &str,
    block: &[&str],
    wrong: &mut String,
) -> String {
    let mut now = String::new();
    let mut lines = block.iter().peekable();
    while let Some(line) = lines.next() {
        let command = line
            .strip_prefix("$ ")
            .unwrap_or_else(|| panic!("not a command: {line}"));
        let mut shown = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("$ ")) {
            shown.push(*line);
        }
        let printed = desk.run(voice, command);
        let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
        let same = agrees(&shown, &printed);
        let kept = if same { &shown } else { &printed };
        let _ = writeln!(now, "$ {command}");
        for line in kept {
            let _ = writeln!(now, "{line}");
        }
        if !same {
            let _ = writeln!(wrong, "$ {command}\n{}\n", printed.join("\n"));
        }
    }
    now
}

/// Does every step of a chapter, and panics if one prints something else than the manual shows.
pub(crate) fn walk(chapter: &str, desk: &mut dyn Desk) {
    let wrong = differences(chapter, desk);
    assert!(wrong.is_empty(), "{chapter} prints otherwise:\n\n{wrong}");
}

/// Does every step of a chapter. Returns the commands that print something else than the manual
/// shows, and what they print.
pub(crate) fn differences(chapter: &str, desk: &mut dyn Desk) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(chapter);
    let text = std::fs::read_to_string(&path).expect("the chapter");
    let (mut now, mut wrong, mut steps) = (String::new(), String::new(), 0);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let _ = writeln!(now, "{line}");
        let Some(info) = line.strip_prefix("```").filter(|info| !info.is_empty()) else {
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match info.split_once(' ') {
            Some(("toml" | "sh", file)) => {
                desk.write(file, &(block.join("\n") + "\n"));
                let _ = writeln!(now, "{}", block.join("\n"));
            }
            _ if info.split(' ').next() == Some("console") => {
                let voice = info.strip_prefix("console ").unwrap_or_default();
                now.push_str(&console(desk, voice, &block, &mut wrong));
                steps += 1;
            }
            _ => {
                let _ = writeln!(now, "{}", block.join("\n"));
            }
        }
        let _ = writeln!(now, "```");
    }
    assert!(steps > 3, "{chapter} has steps");
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(&path, now).expect("the chapter");
        return String::new();
    }
    wrong
}

#[test]
fn your_first_policy_works_as_printed() {
    walk("first_policy.md", &mut Folder::new());
}

#[test]
fn a_step_that_prints_something_else_is_found() {
    let mut wrong = String::new();
    let now = console(
        &mut Folder::new(),
        "",
        &["$ echo a; echo b", "a", "…", "$ echo c", "d"],
        &mut wrong,
    );
    assert_eq!(now, "$ echo a; echo b\na\n…\n$ echo c\nc\n");
    assert_eq!(wrong, "$ echo c\nc\n\n");
}
