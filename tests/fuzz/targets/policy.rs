//! Configurations: any text is a policy, or has findings that say why it is none.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // An include would read files.
    if text.contains("include") {
        return;
    }
    let path = std::path::Path::new("fuzz.toml");
    let (config, findings) = tidegate::config::load_text(path, text);
    assert!(config.is_some() || !findings.is_empty());
});
