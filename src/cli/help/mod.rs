//! `tidegate help [TOPIC]`: a chapter of the manual, or the options of a command.

mod page;
mod table;

use clap::CommandFactory;
use serde::Serialize;

use super::{Answer, Args, print};
use crate::manual::{CHAPTERS, Chapter};

/// The width of a chapter's name in the list.
const TOPIC_WIDTH: usize = 16;

/// Print a chapter of the manual, or the options of a command.
#[derive(Debug, clap::Args)]
pub(super) struct Help {
    /// A chapter, e.g. `policy`, or a command, e.g. `session start`. Without one: the list of chapters.
    topic: Vec<String>,
    /// Print a JSON document: the chapter in Markdown, or the list of chapters.
    #[arg(long)]
    json: bool,
}

/// A chapter, for programs.
#[derive(Serialize)]
struct Row {
    topic: String,
    title: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    markdown: Option<&'static str>,
}

impl Row {
    fn new(chapter: &Chapter) -> Self {
        Self {
            topic: topic(chapter),
            title: chapter.title(),
            markdown: None,
        }
    }
}

/// Returns the name of a chapter as people type it.
fn topic(chapter: &Chapter) -> String {
    chapter.name.replace('_', "-")
}

impl Help {
    pub(super) fn perform(&self) -> Answer {
        let [first, rest @ ..] = self.topic.as_slice() else {
            self.list();
            return Answer::Yes;
        };
        match Chapter::named(first).filter(|_| rest.is_empty()) {
            Some(chapter) => self.chapter(&chapter),
            None => return command(&self.topic),
        }
        Answer::Yes
    }

    fn list(&self) {
        if self.json {
            return print::json(&CHAPTERS.iter().map(Row::new).collect::<Vec<_>>());
        }
        let rows = CHAPTERS
            .iter()
            .map(|chapter| format!("  {:TOPIC_WIDTH$}{}\n", topic(chapter), chapter.title()));
        print::out(&format!(
            "The manual. `tidegate help TOPIC` prints a chapter:\n\n{}\n\
             `tidegate help COMMAND` prints the options of a command, `tidegate --help` the commands.\n",
            rows.collect::<String>()
        ));
    }

    fn chapter(&self, chapter: &Chapter) {
        if self.json {
            let markdown = Some(chapter.text);
            return print::json(&Row {
                markdown,
                ..Row::new(chapter)
            });
        }
        print::out(&page::render(chapter.text, print::colour_of_output()));
    }
}

/// Prints the long help of a command, as `COMMAND --help` does.
fn command(words: &[String]) -> Answer {
    let mut root = Args::command();
    root.build();
    let mut found = &mut root;
    for word in words {
        let Some(below) = found.find_subcommand_mut(word) else {
            print::err(&unknown(&words.join(" ")));
            return Answer::Wrong;
        };
        found = below;
    }
    print::out(&found.render_long_help().to_string());
    Answer::Yes
}

/// Returns the error for an unknown chapter or command.
fn unknown(topic: &str) -> String {
    let chapters = CHAPTERS.iter().map(|chapter| chapter.name);
    let shown = print::clean(topic, 40);
    let near = crate::diag::closest(&topic.replace('-', "_"), chapters)
        .map(|name| format!("; did you mean `{}`?", name.replace('_', "-")))
        .unwrap_or_default();
    format!(
        "tidegate: no chapter and no command is named `{shown}`{near}\n\
         `tidegate help` lists the chapters, `tidegate --help` the commands\n"
    )
}
