//! Denies of packages that are too young.
//!
//! Most malicious versions of packages are found within days. A deny with `unless.min-age` refuses
//! versions that are younger:
//!
//! ```toml
//! [[destination]]
//! category = "package-registry"
//! hosts = ["packages.example.com"]
//! service = "npm"
//!
//! [[rule]]
//! id = "registry"
//! verdict = "allow"
//! to.hosts = ["packages.example.com"]
//! grant.inspect = true
//!
//! [[rule]]
//! id = "no-young-packages"
//! verdict = "deny"
//! to.categories = ["package-registry"]
//! unless.min-age = "7 days"
//! ```
//!
//! Ages are in days (`7 days`) or hours (`36 h`). Before a download goes on, the gate asks the registry
//! when that version was published. A version that is younger is refused (`package_too_new`), and
//! installers show the reason: `left-pad 1.3.1 was published 2 days ago; rule no-young-packages asks 7
//! days`. A tunnel that is not inspected is refused as well: the gate cannot see what it fetches.
//! Requests for an index or the document of a package are not refused, so installers still choose the
//! newest version: name an older one, or set the age in the installer too (`npm
//! install --before`, `uv --exclude-newer`).
//!
//! No allow lifts the deny. Of several, the one that asks the greatest age counts.
//!
//! # Where the gate finds the age
//!
//! | service | document | what the time means |
//! |---|---|---|
//! | `npm` | `/PACKAGE`, `time` | when the registry took it |
//! | `pypi` | `/simple/PACKAGE/` as JSON, `upload-time` of the file | when the index took that file |
//! | `cargo` | `/api/v1/crates/CRATE/VERSION`, `created_at` | when the registry took it |
//! | `rubygems` | `/api/v1/versions/GEM.json`, `created_at`; the youngest platform | when it was built or pushed |
//! | `go` | `/MODULE/@v/VERSION.info`, `Time` | the time of the commit: its author chose it |
//!
//! `[published]` in the files of services has these places. The gate asks the same host for the document,
//! except for public registries whose files are on another host. It follows no redirect, and reads at
//! most 16 MiB within `limits.connect-timeout`. At most two documents of one registry are fetched
//! at once, and eight in all: a slow registry does not delay others.
//!
//! Each fetch is a flow of its own: `user.id` is `tidegate`, `tidegate.channel` is `gate`, and
//! `tidegate.flow.parent` the request that it is for. The policy judges it as a read of the caller of that
//! request, so the caller has to be allowed to read the document too (same upstream, parent, addresses);
//! its decision line stands in the log before anything is dialled.
//!
//! The gate asks without a credential. Only where the registry answers 401, 403 or 404, and only on the
//! host of the request itself, it asks again with the `Authorization` of the request; the record of that
//! second flow says so (`tidegate.detail`). An answer is cached until the next reload, except an answer
//! to a request with a credential.
//!
//! # What is refused
//!
//! - A version that is younger, or of a time that is still to come.
//! - A version of unknown age: no answer, another status than 200, no time, a value that is not a time,
//!   a document that is too long.
//! - A download that does not say which version it is for, and a request that no operation of the
//!   service describes: it may be one. A mirror whose paths are not those of the registry cannot be
//!   used with `min-age`.
//! - Anything that is read at a service that is not in the table.
//! - A tunnel that is not inspected.
//!
//! Writes are not asked for an age. In a tier that observes, all of it passes and the record says
//! `deny` in `tidegate.would`.
