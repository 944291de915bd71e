//! What a request does: read, write or call, in the words of its service.
//!
//! Where a request is seen (plain HTTP, or inspected TLS), its head is read by the service of its
//! destination. The catalogue and rules name the service of a host; a host of the category
//! `source-control` for which none is named speaks git. A file per service,
//! `config/services/NAME.toml`, lists its operations: which methods, paths and parameters, and whether
//! that reads, writes or calls. They are data, dated, and reviewed like code.
//!
//! # What a rule can say of it
//!
//! - The **action**: `read`, `write` or `call`, as in `package-registry:read`.
//! - The **operation**: the word of the service, e.g. `publish` at `npm`, `push` at `git`. A request
//!   that no operation describes is `other`: `GET`, `HEAD` and `OPTIONS` read, all else writes.
//! - The **repository** and the **package**, where the path names them: `acme/app` (without `.git`),
//!   `@acme/ui`. Python names are in lower case with `-` for `_` and `.`; a Maven package is
//!   `group:artifact`; a Go module has its capitals. Images are repositories, not packages.
//!
//! Some requests tell what they do only in their body: a GraphQL query or mutation, an LFS batch,
//! the refs of a push, the wants and haves of a fetch, the method of an MCP message. Their body is
//! read before it goes on. A POST to `git-upload-pack` whose body is not a fetch, or is longer than
//! 1 MiB, is a write (`other`). A fetch carries object ids that its client chooses, at most 8,192 in
//! a request (20 bytes each), as every read carries its path: a rule that only reads makes sending
//! data to a forge slow and leaves a line for each request, it does not make it impossible.
//!
//! # The services
//!
//! | service | what it is | operations |
//! |---|---|---|
//! | `anthropic` | the API of Anthropic | `messages`, `count-tokens`, `batch`, `cancel-batch`, `delete-batch`, `models`, `mcp`, `upload`, `delete-file`, `files`, `skill`, `feedback`, `transcript`, `telemetry`, `domain-info`, `sign-in`, `account`, `managed-policy`, `tunnel-certificate`, `tunnel`, `remote-control`, `administer`, `hello` |
//! | `azure-blob` | Azure Blob Storage | `list`, `get`, `delete`, `batch`, `put` |
//! | `bedrock` | models through Amazon Bedrock | `invoke`, `count-tokens`, `guardrail`, `async-invoke`, `list` |
//! | `cargo` | registries of Rust crates | `publish`, `yank`, `unyank`, `owner`, `edit`, `token`, `oidc`, `download`, `view`, `query`, `index` |
//! | `gcs` | Google Cloud Storage | `batch`, `upload`, `copy`, `delete`, `edit`, `list`, `get`, `put` |
//! | `git` | git over HTTP and Git LFS, at any forge | `fetch`, `push`, `lfs-batch`, `lfs-locks`, `lfs-lock`, `lfs-unlock`, `lfs-download`, `lfs-upload` |
//! | `github` | GitHub: git, REST and GraphQL | `graphql`, `render`, `sign-in`, `sign-out`, `copilot`, `gist`, `create-repository`, `fork`, `commit`, `merge`, `comment`, `review`, `pull-request`, `issue`, `release`, `dispatch`, `actions`, `administer`, `edit`, `download`, `view`, `query` |
//! | `gitlab` | GitLab: git, REST and GraphQL | `graphql`, `render`, `mcp`, `duo`, `sign-in`, `sign-out`, `pull-token`, `push-token`, `snippet`, `create-project`, `fork`, `commit`, `merge`, `comment`, `merge-request`, `issue`, `pipeline`, `release`, `publish`, `administer`, `edit`, `install`, `view`, `query` |
//! | `go` | the module proxy of Go | `sumdb`, `download`, `list` |
//! | `hex` | registries of Erlang and Elixir packages | `publish`, `revert`, `retire`, `owner`, `key`, `download`, `index`, `view` |
//! | `huggingface` | the Hugging Face hub | `xet-write`, `commit`, `create-repository`, `delete-repository`, `view`, `edit`, `download` |
//! | `maven` | repositories of Java packages | `deploy`, `publish`, `delete`, `metadata`, `download` |
//! | `npm` | registries of npm packages | `audit`, `login`, `logout`, `token`, `oidc`, `dist-tag`, `access`, `team`, `org`, `profile`, `unpublish`, `publish`, `view`, `query`, `download` |
//! | `nuget` | registries of .NET packages | `push`, `delete`, `relist`, `oidc`, `download`, `index`, `query` |
//! | `oci` | registries of container images | `mount`, `push`, `cancel`, `delete`, `upload-status`, `pull`, `tags`, `catalog`, `ping`, `pull-token`, `push-token` |
//! | `openai` | the model API that many vendors imitate | `responses`, `count-tokens`, `chat`, `embeddings`, `moderations`, `audio`, `images`, `realtime`, `models`, `upload`, `store`, `batch`, `telemetry` |
//! | `pypi` | indexes of Python packages | `upload`, `oidc`, `oidc-audience`, `browse`, `legacy-action`, `index`, `view`, `download` |
//! | `rubygems` | registries of Ruby gems | `push`, `yank`, `unyank`, `owner`, `sign-in`, `oidc`, `web-hook`, `download`, `index`, `view` |
//! | `s3` | object stores that speak S3 | `list`, `get`, `multipart`, `delete`, `put` |
//! | `vertex` | models through Google Cloud and the Gemini API | `predict`, `generate`, `count-tokens`, `embed`, `upload`, `delete-file`, `cache`, `models` |
//!
//! Services that include git have its operations too.
//!
//! # What to know before relying on it
//!
//! - **An unusual spelling counts as a write.** Methods and paths are case-sensitive; a path that is
//!   not exactly the listed one writes, unless the method reads. Where the query decides (a fetch
//!   of git, a token for a pull), a parameter that stands twice, in other case or with escapes
//!   counts as the write.
//! - **Some GETs write**: the announcement of a git push, a token for uploads, the first request of
//!   a WebSocket that carries data out, signing in and out. They are listed as writes.
//! - **A parameter that names another method** (`_method=DELETE`) makes any request a write. A
//!   header that does is not looked at here.
//! - **Allow by repository and package, do not deny by them.** Some requests name neither: a crate,
//!   a gem or a wheel that is uploaded stands only in the body, and GitHub takes repositories by
//!   number as well. An allow does not match such a request; a deny would not either.
//! - **A package that can be read in two ways has no name**: `good-2evil-1.0.gem` could be version
//!   1.0 of one package or version 2evil of another.
//! - A POST to a host of the categories `model-api` and `mcp` whose service is not known is a call.
