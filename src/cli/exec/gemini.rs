//! Gemini CLI has no option for hooks: they stand in its settings, which `tidegate init gemini` writes.

use std::path::PathBuf;

use crate::config;

/// What is said where its settings have no hooks of ours.
pub(super) const WITHOUT_HOOKS: &str = "tidegate: the settings of Gemini CLI have no hooks of \
    tidegate: the agent is not told what is refused. Write them once: tidegate init gemini \
    --launched --write\n";
const COMMAND: &str = " session hook --agent gemini-cli";

/// Whether the user's settings have hooks of ours.
pub(super) fn has_hooks() -> bool {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let file = home.map(|home| home.join(".gemini/settings.json"));
    let text = file.and_then(|file| config::read(&file).ok());
    text.is_some_and(|text| text.contains(COMMAND))
}
