//! Rules that say how old a version of a package has to be.
//!
//! Most packages that were tampered with are found out within days. A rule that asks for an age lets
//! pass only what others have had the time to look at:
//!
//! ```toml
//! [[rule]]
//! id = "registry"
//! verdict = "allow"
//! hosts = ["packages.example.com"]
//! service = "npm"
//! inspect = true
//! min-age = "7 d"
//! ```
//!
//! Ages are in days (`7 d`) or hours (`36 h`). Before a download goes on, the gate asks the registry
//! when that version was published. A version that is younger is refused (`package_too_new`), and
//! installers show the reason: `left-pad 1.3.1 was published 2 days ago; rule registry asks 7 days`.
//! Whoever only looks around (an index, the document of a package) is not refused, so installers still
//! choose the newest version: name an older one, or set the age in the installer too (`npm
//! install --before`, `uv --exclude-newer`).
//!
//! The age counts where the rule decides: an allow that is named before it, by a more specific host or
//! by standing first, asks for none.
//!
//! # Where it is told
//!
//! | service | document | what it is worth |
//! |---|---|---|
//! | `npm` | `/PACKAGE`, `time` | when the registry took it |
//! | `pypi` | `/simple/PACKAGE/` as JSON, `upload-time` of the file | when the index took that file |
//! | `cargo` | `/api/v1/crates/CRATE/VERSION`, `created_at` | when the registry took it |
//! | `rubygems` | `/api/v1/versions/GEM.json`, `created_at`; the youngest platform | when it was built or pushed |
//! | `go` | `/MODULE/@v/VERSION.info`, `Time` | the time of the commit: its author chose it |
//!
//! The places stand in `[published]` of the files of services. The document is asked for on the same
//! host, but for public registries whose files are on a host of their own. Redirects are not followed;
//! 16 MiB and `limits.connect-timeout` are the bounds. At most two documents of one registry are fetched
//! at once, and eight in all: a slow registry does not hold the others up.
//!
//! Each fetch is a flow of its own: `user.id` is `tidegate`, `tidegate.channel` is `gate`, and
//! `tidegate.flow.parent` the request that it is for. The policy judges it as a read of the caller of that
//! request, so the caller has to be allowed to read the document too (same upstream, parent, addresses);
//! its decision line stands in the log before anything is dialled.
//!
//! The gate asks without a credential. Only where the registry answers 401, 403 or 404, and only on the
//! host of the request itself, it asks again with the `Authorization` of the request; the record of that
//! second flow says so (`tidegate.detail`). What was told is kept until the next reload, but not what
//! was told to a credential.
//!
//! # What is refused
//!
//! - A version that is younger, or of a time that is still to come.
//! - A version whose age is not told: no answer, another status than 200, no time, something that is
//!   no time, a document that is too long.
//! - A download that does not say which version it is for, and a request that no operation of the
//!   service describes: it may be one. A mirror whose paths are not those of the registry cannot be
//!   used with `min-age`.
//! - Anything that is read at a service that is not in the table.
//! - A tunnel that is not inspected.
//!
//! Writes are not asked for an age. In a tier that observes, all of it passes and the record says
//! `deny` in `tidegate.would`.
