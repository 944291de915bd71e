//! Gemini CLI has no option for hooks: `tidegate init gemini` writes them to its settings.

use std::path::PathBuf;

use crate::config;

/// The note if its settings have no hooks of the gate.
pub(super) const WITHOUT_HOOKS: &str = "tidegate: the settings of Gemini CLI have no hooks of \
    tidegate: the agent is not told what is refused. Write them once: tidegate init gemini \
    --launched --write\n";
const COMMAND: &str = " session hook --agent gemini-cli";

/// Whether the user's settings have hooks of the gate.
pub(super) fn has_hooks() -> bool {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let file = home.map(|home| home.join(".gemini/settings.json"));
    let text = file.and_then(|file| config::read(&file).ok());
    text.is_some_and(|text| text.contains(COMMAND))
}
