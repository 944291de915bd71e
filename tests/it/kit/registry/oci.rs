//! OCI: manifests and blobs, pushed and pulled without a token.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::json;

use super::super::{Message, Visit};

/// A type and bytes.
type Thing = (String, Vec<u8>);

/// An image of one small layer as skopeo's `dir:`; where it is.
pub(crate) fn oci_image(home: &Path) -> PathBuf {
    let place = home.join("image");
    std::fs::create_dir_all(&place).expect("a folder");
    for (digest, bytes) in blobs() {
        std::fs::write(place.join(&digest[7..]), bytes).expect("a file");
    }
    std::fs::write(place.join("manifest.json"), manifest()).expect("a file");
    std::fs::write(place.join("version"), "Directory Transport Version: 1.1\n").expect("a file");
    place
}

/// A registry with one image, `acme/app:1`, that takes more.
pub(crate) fn oci_registry(
    _: &str,
) -> impl Fn(&mut Visit, &Message) -> io::Result<()> + Send + Sync + use<> {
    let mut things: HashMap<String, Thing> = HashMap::new();
    for (digest, bytes) in blobs() {
        let kind = "application/octet-stream".to_owned();
        things.insert(format!("/v2/acme/app/blobs/{digest}"), (kind, bytes));
    }
    for name in ["1".to_owned(), sum(manifest().as_bytes())] {
        let bytes = manifest().into_bytes();
        things.insert(
            format!("/v2/acme/app/manifests/{name}"),
            (MANIFEST.to_owned(), bytes),
        );
    }
    let things = Mutex::new(things);
    move |visit, request| {
        let (path, query) = request
            .target()
            .split_once('?')
            .unwrap_or((request.target(), ""));
        match request.method() {
            "GET" | "HEAD" if path == "/v2/" => visit.answer("200 OK", "application/json", b"{}"),
            "GET" | "HEAD" => {
                let found = things.lock().expect("things").get(path).cloned();
                give(visit, request.method(), found)
            }
            "POST" => created(visit, "202 Accepted", &format!("{path}1")),
            "PATCH" => created(visit, "202 Accepted", path),
            "PUT" if path.contains("/uploads/") => {
                let digest = query.split("digest=").nth(1).unwrap_or_default();
                created(visit, "201 Created", &format!("/blobs/{digest}"))
            }
            "PUT" => {
                let kind = request.field("content-type").unwrap_or_default().to_owned();
                let thing = (kind, request.body.clone());
                things
                    .lock()
                    .expect("things")
                    .insert(path.to_owned(), thing);
                created(visit, "201 Created", path)
            }
            _ => visit.answer("405 Method Not Allowed", "text/plain", b""),
        }
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn give(visit: &mut Visit, method: &str, found: Option<Thing>) -> io::Result<()> {
    let Some((kind, bytes)) = found else {
        return visit.say("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    };
    let (length, digest) = (bytes.len(), sum(&bytes));
    visit.say(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Docker-Content-Digest: {digest}\r\n\r\n"
    ))?;
    if method == "GET" {
        visit.say(bytes)
    } else {
        Ok(())
    }
}

fn created(visit: &mut Visit, status: &str, location: &str) -> io::Result<()> {
    visit.say(format!(
        "HTTP/1.1 {status}\r\nLocation: {location}\r\nRange: 0-0\r\nContent-Length: 0\r\n\r\n"
    ))
}

/// The configuration and the layer (an empty archive), by digest.
fn blobs() -> [(String, Vec<u8>); 2] {
    let layer = vec![0; 1024];
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [sum(&layer)] },
    });
    let config = config.to_string().into_bytes();
    [(sum(&config), config), (sum(&layer), layer)]
}

fn manifest() -> String {
    let [(config, config_bytes), (layer, layer_bytes)] = blobs();
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config, "size": config_bytes.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer, "size": layer_bytes.len(),
        }],
    })
    .to_string()
}

fn sum(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let hex = digest.as_ref().iter();
    hex.fold("sha256:".to_owned(), |text, byte| {
        format!("{text}{byte:02x}")
    })
}
