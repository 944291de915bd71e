//! The user manual: the Markdown files of `docs/`, as pages beside the documentation of the code and
//! as the text that `tidegate help TOPIC` prints.

/// One chapter of the manual.
#[derive(Debug, Clone, Copy)]
pub struct Chapter {
    /// The name of its file without `.md`, as `tidegate help` takes it: `claude_code`. `-` may
    /// stand for `_`.
    pub name: &'static str,
    /// The chapter in Markdown (`CommonMark`, with tables). The first line is its title.
    pub text: &'static str,
}

impl Chapter {
    /// The chapter with that name.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.replace('-', "_");
        CHAPTERS
            .iter()
            .find(|chapter| chapter.name == name)
            .copied()
    }

    /// The title: the first line without its mark.
    pub fn title(&self) -> &'static str {
        let first = self.text.lines().next().unwrap_or_default();
        first.trim_start_matches('#').trim()
    }
}

/// A page for each file. Chapters link each other by reference (``[`jail`]``), and their last lines
/// say `jail.md`. On these pages the first definition of a reference counts: the page of the module.
macro_rules! chapters {
    ($($name:ident)*) => {
        /// Every chapter, in the order of reading.
        pub const CHAPTERS: &[Chapter] = &[$(Chapter {
            name: stringify!($name),
            text: include_str!(concat!("../docs/", stringify!($name), ".md")),
        }),*];

        $(
            pub mod $name {
                #![doc = "[`actions`]: super::actions"]
                #![doc = include_str!(concat!("../docs/", stringify!($name), ".md"))]
            }
        )*
    };
}

chapters! {
    start
    first_policy
    policy
    approvals
    policy_changes
    exceptions
    actions
    commands
    identity
    claude_code
    agents
    jail
    interception
    mcp
    credentials
    ages
    redteam
    upstreams
    parents
    operations
    replay
    refusals
}
