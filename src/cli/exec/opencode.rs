//! The plugin for opencode, which reports its calls (`opencode.mjs`).

use std::io;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Value, json};

use super::own_file;

/// The configuration that opencode adds to its files.
const VARIABLE: &str = "OPENCODE_CONFIG_CONTENT";
const PLUGIN: &str = include_str!("opencode.mjs");
const FILE: &str = "opencode-plugin.mjs";
/// Characters that a path of a URL must escape.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'#').add(b'%').add(b'?');

/// Writes the plugin beside the records; returns its path.
pub(super) fn write(record: Option<&Path>) -> io::Result<PathBuf> {
    let path = own_file::folder(record)?.join(FILE);
    own_file::write(&path, &text()?, 0o644)?;
    Ok(path)
}

/// Returns the plugin, which names this program.
pub(in crate::cli) fn text() -> io::Result<String> {
    let program = json!(std::env::current_exe()?.to_string_lossy());
    Ok(PLUGIN.replace("\"@PROGRAM@\"", &program.to_string()))
}

/// Returns the variable that makes opencode load the plugin, in addition to the user's value.
pub(super) fn variable(plugin: &Path) -> Result<(&'static str, String), String> {
    let before = std::env::var_os(VARIABLE).unwrap_or_default();
    with_plugin(&before.to_string_lossy(), plugin).map(|text| (VARIABLE, text))
}

fn with_plugin(before: &str, plugin: &Path) -> Result<String, String> {
    let wrong = || format!("{VARIABLE} is set, and is not the JSON of a configuration");
    let mut config = match before.trim() {
        "" => json!({}),
        text => serde_json::from_str(text).map_err(|_| wrong())?,
    };
    let Value::Object(fields) = &mut config else {
        return Err(wrong());
    };
    let plugins = fields.entry("plugin").or_insert_with(|| json!([]));
    let plugins = plugins.as_array_mut().ok_or_else(wrong)?;
    let path = plugin.to_string_lossy();
    plugins.push(json!(format!(
        "file://{}",
        utf8_percent_encode(&path, ESCAPED)
    )));
    Ok(config.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_configured_stays() {
        let path = Path::new("/my #1 records/opencode-plugin.mjs");
        let own = r#"{"plugin":["mine"],"model":"a/b"}"#;
        let both: Value = serde_json::from_str(&with_plugin(own, path).unwrap()).unwrap();
        let expected = json!({
            "plugin": ["mine", "file:///my%20%231%20records/opencode-plugin.mjs"], "model": "a/b"
        });
        assert_eq!(both, expected);
        assert!(with_plugin("", path).is_ok());
        for wrong in ["[]", "{", r#"{"plugin":1}"#] {
            assert!(with_plugin(wrong, path).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_plugin_names_this_program() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = write(Some(&folder.path().join("decisions.jsonl"))).unwrap();
        let text = crate::config::read(&path).unwrap();
        assert!(!text.contains("@PROGRAM@") && text.contains("const PROGRAM = \"/"));
        assert!(write(None).is_err());
    }
}
