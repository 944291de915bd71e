//! A package of npm whose install script makes a flow.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

/// The only version.
const VERSION: &str = "0.0.1";
/// Bytes of a block of a tar archive.
const BLOCK: usize = 512;

/// The document and the archive of the package.
#[derive(Debug)]
pub(super) struct Package {
    path: String,
    document: Bytes,
    archive_path: String,
    archive: Bytes,
}

impl Package {
    /// Makes the package of this name, at the registry with this URL (which ends with `/`).
    pub(super) fn new(registry: &str, name: &str, script: Option<&str>) -> std::io::Result<Self> {
        let archive_path = format!("/{name}/-/{name}-{VERSION}.tgz");
        let tarball = format!("{}{archive_path}", registry.trim_end_matches('/'));
        let scripts = script.map_or_else(|| json!({}), |script| json!({ "postinstall": script }));
        let version = json!({
            "name": name,
            "version": VERSION,
            "scripts": scripts,
            "hasInstallScript": script.is_some(),
            "dist": { "tarball": tarball },
        });
        let manifest = json!({ "name": name, "version": VERSION, "scripts": scripts });
        let document = json!({
            "name": name,
            "dist-tags": { "latest": VERSION },
            "versions": { VERSION: version },
        });
        Ok(Self {
            path: format!("/{name}"),
            document: document.to_string().into(),
            archive_path,
            archive: archive(&manifest.to_string())?,
        })
    }

    /// Returns the file at a path, with its type.
    pub(super) fn file(&self, path: &str) -> Option<(&'static str, Bytes)> {
        if path == self.path {
            return Some(("application/json", self.document.clone()));
        }
        let archive = ("application/octet-stream", self.archive.clone());
        (path == self.archive_path).then_some(archive)
    }
}

/// Packs a `package.json` as npm does: a tar archive (POSIX `ustar`) in gzip.
fn archive(manifest: &str) -> std::io::Result<Bytes> {
    let mut header = [0_u8; BLOCK];
    let size = format!("{:011o}", manifest.len());
    let fields: [(usize, &[u8]); 8] = [
        (0, b"package/package.json"),
        (100, b"0000644"),
        (108, b"0000000"),
        (116, b"0000000"),
        (124, size.as_bytes()),
        (136, b"00000000000"),
        (156, b"0"),
        (257, b"ustar\x0000"),
    ];
    for (at, value) in fields {
        put(&mut header, at, value);
    }
    // The sum counts its own field as blanks.
    put(&mut header, 148, b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut header, 148, format!("{sum:06o}\0 ").as_bytes());
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&header)?;
    packed.write_all(manifest.as_bytes())?;
    let filled = manifest.len().next_multiple_of(BLOCK) - manifest.len();
    // Two empty blocks end the archive.
    packed.write_all(&vec![0; filled + 2 * BLOCK])?;
    Ok(packed.finish()?.into())
}

fn put(header: &mut [u8; BLOCK], at: usize, value: &[u8]) {
    if let Some(place) = header.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}
