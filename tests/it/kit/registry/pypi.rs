//! A Python index: simple pages in both forms, files, uploads.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::super::{Message, Program, Visit};

/// The one file of the index.
const FILE: &str = "demo_package-1.0-py3-none-any.whl";

/// A wheel named `demo_package`, made by Python's own zip; where it is.
pub(crate) fn wheel(home: &Path) -> PathBuf {
    let script = format!(
        "
import zipfile
with zipfile.ZipFile('{FILE}', 'w') as wheel:
    wheel.writestr('demo_package.py', 'ANSWER = 42\\n')
    info = 'demo_package-1.0.dist-info/'
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: demo-package\\nVersion: 1.0\\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + 'RECORD', 'demo_package.py,,\\n' + info + 'METADATA,,\\n' + info + 'WHEEL,,\\n' + info + 'RECORD,,\\n')
"
    );
    Program::new("python3", home)
        .args(["-c", &script])
        .run()
        .succeeded();
    home.join(FILE)
}

/// An index with one package, `demo-package` 1.0 of 2020, that takes uploads at `/legacy/`.
pub(crate) fn pypi_registry(
    _: &str,
) -> impl Fn(&mut Visit, &Message) -> io::Result<()> + Send + Sync + use<> {
    pypi_registry_of("2020-01-01T00:00:00.000000Z")
}

/// As [`pypi_registry`], with its file of that time.
pub(crate) fn pypi_registry_of(
    time: &str,
) -> impl Fn(&mut Visit, &Message) -> io::Result<()> + Send + Sync + use<> {
    let home = TempDir::new().expect("a home");
    let bytes = std::fs::read(wheel(home.path())).expect("a wheel");
    let page = format!("<!DOCTYPE html><a href=\"/packages/{FILE}\">{FILE}</a>");
    let index = json!({
        "meta": { "api-version": "1.1" }, "name": "demo-package", "versions": ["1.0"],
        "files": [{
            "filename": FILE, "url": format!("/packages/{FILE}"), "hashes": {}, "size": bytes.len(),
            "upload-time": time,
        }],
    })
    .to_string();
    let file = format!("/packages/{FILE}");
    move |visit, request| match (request.method(), request.target()) {
        ("GET", "/simple/demo-package/") => {
            let json = "application/vnd.pypi.simple.v1+json";
            if request.field("accept").unwrap_or_default().contains(json) {
                visit.answer("200 OK", json, index.as_bytes())
            } else {
                visit.answer("200 OK", "text/html", page.as_bytes())
            }
        }
        ("GET", path) if path == file => visit.answer("200 OK", "application/zip", &bytes),
        ("POST", "/legacy/") => visit.answer("200 OK", "text/plain", b"taken"),
        _ => visit.answer("404 Not Found", "text/plain", b"nothing here"),
    }
}
