//! Cargo: a sparse index, downloads, and the API that publishes and yanks.

use std::io;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::super::{Message, Program, Visit};

/// The cargo that runs these tests, with a home of its own.
pub(crate) fn cargo(home: &Path) -> Program {
    let toolchains = std::env::var_os("RUSTUP_HOME").unwrap_or_else(|| {
        Path::new(&std::env::var_os("HOME").expect("a HOME"))
            .join(".rustup")
            .into_os_string()
    });
    Program::at(Path::new(env!("CARGO")), home)
        .env("CARGO_HOME", home.join("cargo"))
        .env("RUSTUP_HOME", toolchains)
}

/// A registry with one crate, `demo-crate` 0.1.0, that takes new ones.
pub(crate) fn cargo_registry(
    url: &str,
) -> impl Fn(&mut Visit, &Message) -> io::Result<()> + Send + Sync + use<> {
    let archive = archive();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &archive);
    let digest = digest
        .as_ref()
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let entry = json!({
        "name": "demo-crate", "vers": "0.1.0", "deps": [], "cksum": digest, "features": {},
        "yanked": false,
    });
    let config = json!({ "dl": format!("{url}/dl"), "api": url }).to_string();
    let index = format!("{entry}\n");
    move |visit, request| {
        let said: &str = match (request.method(), request.target()) {
            ("GET", "/config.json") => &config,
            ("GET", "/de/mo/demo-crate") => &index,
            ("GET", "/dl/demo-crate/0.1.0/download") => {
                return visit.answer("200 OK", "application/octet-stream", &archive);
            }
            ("PUT", "/api/v1/crates/new") => {
                r#"{"warnings":{"invalid_categories":[],"invalid_badges":[],"other":[]}}"#
            }
            ("PUT" | "DELETE", path) if path.starts_with("/api/v1/crates/") => r#"{"ok":true}"#,
            _ => return visit.answer("404 Not Found", "application/json", b"{}"),
        };
        visit.answer("200 OK", "application/json", said.as_bytes())
    }
}

fn archive() -> Vec<u8> {
    let home = TempDir::new().expect("a home");
    let place = home.path().join("demo-crate");
    std::fs::create_dir_all(place.join("src")).expect("a folder");
    std::fs::write(place.join("src/lib.rs"), "//! Nothing.\n").expect("a file");
    let manifest = "[package]\nname = \"demo-crate\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
    std::fs::write(place.join("Cargo.toml"), manifest).expect("a file");
    cargo(home.path())
        .args(["package", "--no-verify", "--offline"])
        .within(&place)
        .run()
        .succeeded();
    let archive = place.join("target/package/demo-crate-0.1.0.crate");
    std::fs::read(archive).expect("an archive")
}
