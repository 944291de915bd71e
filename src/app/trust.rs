//! The certificate files for clients, kept beside the records and updated with the authority.

use std::path::{Path, PathBuf};

use crate::config::Record;
use crate::tls::{Authority, Bundle};

/// Writes the certificates that clients have to trust; flows go on if the write fails.
pub(super) fn publish(record: &Record, authority: &Authority) -> Option<Bundle> {
    let folder = record.file.as_deref().and_then(Path::parent)?;
    let bundle = Bundle::in_folder(folder);
    let usual = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let published: Vec<_> = authority.published().collect();
    let written = bundle.write(published.into_iter(), usual.as_deref());
    if let Err(error) = &written {
        tracing::warn!(%error, "cannot write the certificates that clients have to trust");
    }
    written.ok().map(|()| bundle)
}
