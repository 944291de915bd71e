//! The requests of package manager and forge commands, and the facts read from each.

use serde::Deserialize;

use super::*;

const COMMANDS: &str = include_str!("commands.toml");

#[derive(Deserialize)]
struct Commands {
    command: Vec<Command>,
}

#[derive(Deserialize)]
struct Command {
    service: String,
    #[serde(rename = "command")]
    line: String,
    basis: String,
    /// `REQUEST -> OPERATION ACTION …`.
    requests: Vec<String>,
}

impl Command {
    fn requests(&self) -> impl Iterator<Item = (&str, &str)> {
        let split = |line: &'_ str| -> Option<(usize, usize)> {
            let at = line.find(" -> ")?;
            Some((at, at + 4))
        };
        self.requests.iter().map(move |line| {
            let (end, start) = split(line).unwrap_or_else(|| panic!("{line}"));
            (&line[..end], &line[start..])
        })
    }

    /// Returns its row in the manual.
    fn row(&self) -> String {
        let words = self.requests().map(|(_, read)| {
            let mut parts = read.split(' ');
            let (operation, action) = (parts.next().unwrap(), parts.next().unwrap());
            match action {
                "?" => format!("`{operation}` (by its body)"),
                action => format!("`{operation}` ({action})"),
            }
        });
        let mut once: Vec<String> = Vec::new();
        for word in words {
            if !once.contains(&word) {
                once.push(word);
            }
        }
        let words = once.join(", ");
        format!("| `{}` | `{}` | {words} |\n", self.line, self.service)
    }
}

fn commands() -> Vec<Command> {
    toml::from_str::<Commands>(COMMANDS).unwrap().command
}

#[test]
fn each_request_of_a_command_is_read_as_listed() {
    let services = Services::built_in();
    let mut wrong = String::new();
    for command in commands() {
        assert!(!command.basis.is_empty(), "{}", command.line);
        for (request, expected) in command.requests() {
            let found = tell(
                &services,
                Some(&command.service),
                Category::Unknown,
                request,
            );
            if found != expected {
                let row = [command.service.as_str(), request, expected, &found].join(" | ");
                wrong.push_str(&row);
                wrong.push('\n');
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "service, request, expected, found:\n{wrong}"
    );
}

/// A command that changes nothing has no write, and one that changes something has at least one.
#[test]
fn the_manual_lists_every_command() {
    let manual = include_str!("../../../../docs/commands.md");
    let rows = commands().iter().map(Command::row).collect::<Vec<_>>();
    let missing = rows.iter().filter(|row| !manual.contains(*row));
    let missing: String = missing.map(String::as_str).collect();
    assert!(missing.is_empty(), "write in docs/commands.md:\n{missing}");
}
