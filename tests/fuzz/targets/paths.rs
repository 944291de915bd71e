//! Request targets: a path that parses is its own form, and its readings are plain.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::name::Path;

fuzz_target!(|data: &[u8]| {
    let Ok(path) = Path::parse(data) else {
        return;
    };
    assert_eq!(Path::parse(path.as_str().as_bytes()).as_ref(), Ok(&path));
    let readings = path.readings();
    assert!((1..=4).contains(&readings.len()));
    for reading in readings {
        assert!(reading.starts_with('/') && !reading.contains("//"));
        assert!(!reading.split('/').any(|part| part == "." || part == ".."));
    }
});
