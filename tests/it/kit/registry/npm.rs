//! npm: documents with times, archives, publish, tags, audit, whoami.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::{Message, Program, Visit};

/// A package of that name and version in a folder of its own; where it is.
pub(crate) fn npm_package(home: &Path, name: &str, version: &str) -> PathBuf {
    let place = home.join(format!("package-{version}"));
    std::fs::create_dir_all(&place).expect("a folder");
    let manifest = json!({ "name": name, "version": version, "main": "index.js" });
    std::fs::write(place.join("package.json"), manifest.to_string()).expect("a file");
    std::fs::write(place.join("index.js"), "module.exports = 42;\n").expect("a file");
    place
}

/// A registry with the packages `demo` and `@acme/demo`: 1.0.0 of 2020, and 1.1.0 of the far future.
pub(crate) fn npm_registry(
    url: &str,
) -> impl Fn(&mut Visit, &Message) -> io::Result<()> + Send + Sync + use<> {
    npm_registry_of(url, "2099-01-01T00:00:00.000Z")
}

/// As [`npm_registry`], with 1.1.0 of that time.
pub(crate) fn npm_registry_of(
    url: &str,
    time: &str,
) -> impl Fn(&mut Visit, &Message) -> io::Result<()> + Send + Sync + use<> {
    let (plain, scoped) = (
        document(url, "demo", time),
        document(url, "@acme/demo", time),
    );
    let (archive, of_scope) = (archive("demo"), archive("@acme/demo"));
    move |visit, request| {
        let path = request.target().split('?').next().unwrap_or_default();
        let path = path.replace("%2f", "/").replace("%2F", "/");
        let said: Value = match (request.method(), path.as_str()) {
            ("GET", "/demo") => plain.clone(),
            ("GET", "/@acme/demo") => scoped.clone(),
            ("GET", "/demo/-/demo-1.0.0.tgz") => {
                return visit.answer("200 OK", "application/octet-stream", &archive);
            }
            ("GET", "/@acme/demo/-/demo-1.0.0.tgz" | "/@acme/demo/-/demo-1.1.0.tgz") => {
                return visit.answer("200 OK", "application/octet-stream", &of_scope);
            }
            ("GET", "/-/whoami") => json!({ "username": "ana" }),
            ("GET", "/-/package/@acme/demo/dist-tags") => json!({ "latest": "1.0.0" }),
            ("POST", "/-/npm/v1/security/advisories/bulk") => json!({}),
            ("PUT" | "DELETE", _) => json!({ "ok": true }),
            _ => return visit.answer("404 Not Found", "application/json", b"{}"),
        };
        visit.answer("200 OK", "application/json", said.to_string().as_bytes())
    }
}

fn document(url: &str, name: &str, time: &str) -> Value {
    let version = |version: &str| {
        json!({
            "name": name, "version": version,
            "dist": { "tarball": format!("{url}/{name}/-/demo-{version}.tgz") },
        })
    };
    json!({
        "_id": name,
        "name": name,
        "dist-tags": { "latest": "1.0.0", "next": "1.1.0" },
        "time": {
            "created": "2020-01-01T00:00:00.000Z",
            "modified": "2020-01-01T00:00:00.000Z",
            "1.0.0": "2020-01-01T00:00:00.000Z",
            "1.1.0": time,
        },
        "versions": { "1.0.0": version("1.0.0"), "1.1.0": version("1.1.0") },
    })
}

fn archive(name: &str) -> Vec<u8> {
    let home = TempDir::new().expect("a home");
    let place = npm_package(home.path(), name, "1.0.0");
    Program::new("npm", home.path())
        .env("npm_config_update_notifier", "false")
        .args(["pack", "--offline"])
        .within(&place)
        .run()
        .succeeded();
    let file = name.trim_start_matches('@').replace('/', "-") + "-1.0.0.tgz";
    std::fs::read(place.join(file)).expect("an archive")
}
