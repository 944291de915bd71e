//! The environment variables that make clients trust the authority.
//!
//! Most clients use the file instead of their own roots, so the file has the system's roots too;
//! Node and Deno add the file to their roots. npm and pnpm are Node: `npm_config_cafile` would
//! replace a file that a user's `.npmrc` names, so it is not set.

use std::io;
use std::path::{Path, PathBuf};

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::tls::{Bundle, Facts};

/// Variables of a file that replaces the client's roots.
const WHOLE: [&str; 9] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "NIX_SSL_CERT_FILE",
];
/// Variables of a file that is added to the client's roots.
const ADDED: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

/// Returns the variables that make clients trust these files, by name.
pub(in crate::cli) fn variables(bundle: &Bundle) -> Vec<(&'static str, String)> {
    let text = |path: &Path| path.display().to_string();
    let whole = WHOLE.map(|name| (name, text(&bundle.whole)));
    let added = ADDED.map(|name| (name, text(&bundle.own)));
    let java = bundle.java.is_file().then(|| {
        let store = text(&bundle.java);
        let option = format!(
            "-Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStorePassword=changeit"
        );
        ("JAVA_TOOL_OPTIONS", option)
    });
    // A path with blanks would end the option.
    let java = java.filter(|_| !text(&bundle.java).contains(char::is_whitespace));
    whole.into_iter().chain(added).chain(java).collect()
}

/// Returns the bundle files of a configuration that inspects, and updates them; `None` if the
/// configuration names no authority, or the authority is not made yet.
pub(in crate::cli) fn trusted(config: &Config) -> Option<io::Result<Bundle>> {
    let authority = config.inspect.authority.as_ref()?;
    let read = |path: &PathBuf| config::read(path).unwrap_or_default();
    let current = Facts::of_pem(&read(&authority.cert)).into_iter().take(1);
    let former = authority
        .previous
        .iter()
        .flat_map(|it| Facts::of_pem(&read(it)));
    let now = Clock::system().now();
    let all: Vec<_> = current
        .chain(former.filter(|it| it.not_after > now))
        .collect();
    if all.is_empty() {
        return None;
    }
    let folder = config.record.file.as_deref().and_then(Path::parent);
    let Some(folder) = folder else {
        let why = "records are kept in no folder, so there is no folder for the trust bundle";
        return Some(Err(io::Error::other(why)));
    };
    let bundle = Bundle::in_folder(folder);
    let ours = all.iter().map(|it| it.der.as_slice());
    let written = bundle.write(ours, usual().as_deref());
    // A bundle that the gate wrote is equally good, if only the gate may write there.
    let there = bundle.whole.is_file() && bundle.own.is_file();
    Some(match written {
        Err(error) if !(there && error.kind() == io::ErrorKind::PermissionDenied) => Err(error),
        _ => Ok(bundle),
    })
}

/// Returns the bundle that the user trusts instead of the system's roots.
pub(in crate::cli) fn usual() -> Option<PathBuf> {
    std::env::var_os("SSL_CERT_FILE").map(PathBuf::from)
}

/// Returns the settings for programs that ignore the system's trust store.
pub(super) fn needs(bundle: Option<&Bundle>) -> String {
    let bundle = bundle.cloned().unwrap_or_else(|| Bundle {
        whole: "BUNDLE".into(),
        own: "CA.pem".into(),
        java: "KEYSTORE".into(),
    });
    let (whole, own) = (bundle.whole.display(), bundle.own.display());
    format!(
        "Programs that use the system's trust need nothing more: curl, git, wget, Go, gh, apt.\n\
         Others have roots of their own; `tidegate env --config FILE` prints all of this:\n  \
         Node, npm, pnpm, yarn, Bun    NODE_EXTRA_CA_CERTS={own}\n  \
         Deno                          DENO_CERT={own}\n  \
         Python: requests, pip, httpx  REQUESTS_CA_BUNDLE, PIP_CERT, SSL_CERT_FILE={whole}\n  \
         uv, rustup, cargo             SSL_CERT_FILE, CARGO_HTTP_CAINFO={whole}\n  \
         aws, gcloud, nix              AWS_CA_BUNDLE, CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE,\n  \
         {blank:30}NIX_SSL_CERT_FILE={whole}\n  \
         Java                          `tidegate ca install --java`, then `tidegate env`\n",
        blank = "",
    )
}
