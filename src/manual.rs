//! The user manual: the Markdown files of `docs/`, as pages of the code documentation and as the
//! texts of `tidegate help TOPIC`.

/// One chapter of the manual.
#[derive(Debug, Clone, Copy)]
pub struct Chapter {
    /// The file name without `.md`, e.g. `claude_code`. `tidegate help` accepts `-` for `_`.
    pub name: &'static str,
    /// The chapter in Markdown (`CommonMark`, with tables). The first line is its title.
    pub text: &'static str,
}

impl Chapter {
    /// Returns the chapter with this name.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.replace('-', "_");
        CHAPTERS
            .iter()
            .find(|chapter| chapter.name == name)
            .copied()
    }

    /// The title: the first line without its `#`.
    pub fn title(&self) -> &'static str {
        let first = self.text.lines().next().unwrap_or_default();
        first.trim_start_matches('#').trim()
    }
}

/// Makes a page of each file. Chapters link each other by reference (``[`jail`]``) and define the
/// reference as `jail.md` at their end. On these pages the first definition counts: the page of the
/// module.
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
    an_hour
    policy_changes
    policy_walkthrough
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
