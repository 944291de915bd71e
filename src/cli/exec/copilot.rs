//! The plugin for Copilot CLI, which has its hooks (`--plugin-dir`). No file of the user is changed.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::init::program;
use super::super::init::settings::copilot_hooks;
use super::own_file::{self, SIGN};

/// The note if the plugin cannot be added.
pub(super) const WITHOUT_HOOKS: &str = "tidegate: this run adds no hooks to Copilot CLI. If its \
    settings have none, tool calls are not on record, and the model is not told what is refused. \
    Write them once: tidegate init copilot --launched --write\n";
/// The option that names the folder of a plugin.
pub(super) const OPTION: &str = "--plugin-dir";
const FOLDER: &str = "copilot-plugin";
const FILE: &str = "plugin.json";

/// Writes the plugin beside the records; returns its file, alone in its folder.
pub(super) fn write(record: Option<&Path>) -> io::Result<PathBuf> {
    let folder = own_file::folder(record)?.join(FOLDER);
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(FILE);
    let plugin = json!({
        "name": "tidegate",
        "version": env!("CARGO_PKG_VERSION"),
        "description": format!("{SIGN} exec: reports tool calls to tidegate."),
        "hooks": copilot_hooks(&program(false)),
    });
    own_file::write(&path, &format!("{plugin:#}\n"), 0o644)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_is_alone_in_its_folder_and_reports_each_call() {
        let folder = tempfile::TempDir::new().unwrap();
        let record = folder.path().join("decisions.jsonl");
        let path = write(Some(&record)).unwrap();
        write(Some(&record)).unwrap();
        let text = crate::config::read(&path).unwrap();
        let plugin: serde_json::Value = serde_json::from_str(&text).unwrap();
        let hook = &plugin["hooks"]["PostToolUse"][0]["hooks"][0]["command"];
        let hook = hook.as_str().unwrap();
        assert!(hook.ends_with(" session hook --agent copilot"), "{hook}");
        let files = std::fs::read_dir(path.parent().unwrap()).unwrap();
        assert_eq!(files.count(), 1);
    }
}
