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
//! the refs of a push, the wants and haves of a fetch, the scope of a token for a registry of
//! images, the method of an MCP message. The gate reads such a body before it forwards the
//! request. A POST to `git-upload-pack` whose body is not a fetch, or is longer than 1 MiB, is a
//! write (`other`). A fetch carries object ids that its client chooses, at most 8,192 in a request
//! (20 bytes each), as every read carries its path: a rule that only reads makes sending data to a
//! forge slow and leaves a line for each request, it does not make it impossible.
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
//! | `git` | git over HTTP and Git LFS, at any forge | `fetch`, `push`, `lfs-batch`, `lfs-locks`, `lfs-lock`, `lfs-unlock`, `lfs-download`, `lfs-upload`, `create`, `delete`, `push-probe` |
//! | `github` | GitHub: git, REST and GraphQL | `graphql`, `render`, `sign-in`, `sign-out`, `copilot`, `gist`, `create-repository`, `fork`, `commit`, `merge`, `comment`, `review`, `pull-request`, `issue`, `release`, `dispatch`, `actions`, `administer`, `edit`, `download`, `view`, `query`, `graphql-query`, `graphql-subscription`, `graphql-mutation`, `graphql-unreadable`, `push` |
//! | `gitlab` | GitLab: git, REST and GraphQL | `graphql`, `render`, `mcp`, `duo`, `sign-in`, `sign-out`, `pull-token`, `push-token`, `snippet`, `create-project`, `fork`, `commit`, `merge`, `comment`, `merge-request`, `issue`, `pipeline`, `release`, `publish`, `administer`, `edit`, `install`, `view`, `query`, `graphql-query`, `graphql-subscription`, `graphql-mutation`, `graphql-unreadable`, `push` |
//! | `go` | the module proxy of Go | `sumdb`, `download`, `list` |
//! | `hex` | registries of Erlang and Elixir packages | `publish`, `revert`, `retire`, `owner`, `key`, `download`, `index`, `view` |
//! | `huggingface` | the Hugging Face hub | `xet-write`, `commit`, `create-repository`, `delete-repository`, `view`, `edit`, `download`, `push` |
//! | `maven` | repositories of Java packages | `deploy`, `publish`, `delete`, `metadata`, `download` |
//! | `npm` | registries of npm packages | `audit`, `login`, `logout`, `token`, `oidc`, `dist-tag`, `access`, `team`, `org`, `profile`, `unpublish`, `publish`, `view`, `query`, `download` |
//! | `nuget` | registries of .NET packages | `push`, `delete`, `relist`, `oidc`, `download`, `index`, `query` |
//! | `oci` | registries of container images | `mount`, `push`, `cancel`, `delete`, `upload-status`, `pull`, `tags`, `catalog`, `ping`, `pull-token`, `push-token`, `token` |
//! | `openai` | the model API that many vendors imitate | `responses`, `count-tokens`, `chat`, `embeddings`, `moderations`, `audio`, `images`, `realtime`, `models`, `upload`, `store`, `batch`, `telemetry` |
//! | `pypi` | indexes of Python packages | `upload`, `oidc`, `oidc-audience`, `browse`, `legacy-action`, `index`, `view`, `download` |
//! | `rubygems` | registries of Ruby gems | `push`, `yank`, `unyank`, `owner`, `sign-in`, `oidc`, `web-hook`, `download`, `index`, `view`, `query` |
//! | `s3` | object stores that speak S3 | `list`, `get`, `multipart`, `delete`, `put` |
//! | `vertex` | models through Google Cloud and the Gemini API | `predict`, `generate`, `count-tokens`, `embed`, `upload`, `delete-file`, `cache`, `models` |
//!
//! Services that include git have its operations too.
//!
//! # Words that include others
//!
//! A rule that names a word means each word below it, so `operations = ["push"]` also holds for a
//! push that deletes a branch, and `comment` for the GraphQL mutation that adds one. The word of a
//! request before its body is read includes those that the body may tell. `mutation:FIELD` is a
//! field of a GraphQL mutation. A mutation whose fields cannot be told is `graphql-mutation`, a
//! request that cannot be read `graphql-unreadable`: a deny or ask of any mutation matches both, an
//! allow neither. Whether a push is forced is not on the wire: a ref that moves is `push`.
//!
//! | service | word | includes |
//! |---|---|---|
//! | `git` | `fetch` | `lfs-download`, `lfs-locks` |
//! | `git` | `lfs-batch` | `lfs-download`, `lfs-upload` |
//! | `git` | `push` | `create`, `delete`, `push-probe`, `lfs-upload`, `lfs-lock`, `lfs-unlock` |
//! | `github` | `administer` | `mutation:updateRepository`, `mutation:archiveRepository`, `mutation:unarchiveRepository`, `mutation:createBranchProtectionRule`, `mutation:updateBranchProtectionRule`, `mutation:deleteBranchProtectionRule`, `mutation:createRepositoryRuleset`, `mutation:updateRepositoryRuleset`, `mutation:deleteRepositoryRuleset`, `mutation:createEnvironment`, `mutation:updateEnvironment`, `mutation:deleteEnvironment` |
//! | `github` | `comment` | `mutation:addComment`, `mutation:updateIssueComment`, `mutation:deleteIssueComment`, `mutation:addDiscussionComment`, `mutation:updateDiscussionComment`, `mutation:deleteDiscussionComment`, `mutation:addPullRequestReviewComment`, `mutation:updatePullRequestReviewComment`, `mutation:deletePullRequestReviewComment`, `mutation:addPullRequestReviewThread`, `mutation:addPullRequestReviewThreadReply`, `mutation:minimizeComment`, `mutation:unminimizeComment` |
//! | `github` | `commit` | `mutation:createCommitOnBranch`, `mutation:createRef`, `mutation:updateRef`, `mutation:updateRefs`, `mutation:deleteRef`, `mutation:mergeBranch` |
//! | `github` | `create-repository` | `mutation:createRepository`, `mutation:cloneTemplateRepository` |
//! | `github` | `graphql` | `graphql-query`, `graphql-subscription`, `graphql-mutation`, `graphql-unreadable` |
//! | `github` | `graphql-mutation` | `mutation:*` |
//! | `github` | `issue` | `mutation:createIssue`, `mutation:updateIssue`, `mutation:closeIssue`, `mutation:reopenIssue`, `mutation:deleteIssue`, `mutation:transferIssue`, `mutation:pinIssue`, `mutation:unpinIssue`, `mutation:lockLockable`, `mutation:unlockLockable`, `mutation:addLabelsToLabelable`, `mutation:removeLabelsFromLabelable`, `mutation:clearLabelsFromLabelable`, `mutation:createLabel`, `mutation:updateLabel`, `mutation:deleteLabel`, `mutation:addAssigneesToAssignable`, `mutation:removeAssigneesFromAssignable`, `mutation:addSubIssue`, `mutation:removeSubIssue` |
//! | `github` | `merge` | `mutation:mergePullRequest`, `mutation:enqueuePullRequest` |
//! | `github` | `pull-request` | `mutation:createPullRequest`, `mutation:updatePullRequest`, `mutation:closePullRequest`, `mutation:reopenPullRequest`, `mutation:convertPullRequestToDraft`, `mutation:markPullRequestReadyForReview`, `mutation:updatePullRequestBranch`, `mutation:revertPullRequest`, `mutation:requestReviews`, `mutation:requestReviewsByLogin`, `mutation:enablePullRequestAutoMerge`, `mutation:disablePullRequestAutoMerge` |
//! | `github` | `push` | `commit` |
//! | `github` | `review` | `mutation:addPullRequestReview`, `mutation:submitPullRequestReview`, `mutation:updatePullRequestReview`, `mutation:deletePullRequestReview`, `mutation:dismissPullRequestReview` |
//! | `gitlab` | `comment` | `mutation:createNote`, `mutation:updateNote`, `mutation:destroyNote`, `mutation:createDiffNote`, `mutation:createImageDiffNote`, `mutation:createDiscussion` |
//! | `gitlab` | `commit` | `mutation:commitCreate`, `mutation:createBranch` |
//! | `gitlab` | `graphql` | `graphql-query`, `graphql-subscription`, `graphql-mutation`, `graphql-unreadable` |
//! | `gitlab` | `graphql-mutation` | `mutation:*` |
//! | `gitlab` | `issue` | `mutation:createIssue`, `mutation:updateIssue`, `mutation:issueMove`, `mutation:workItemCreate`, `mutation:workItemUpdate`, `mutation:workItemDelete` |
//! | `gitlab` | `merge` | `mutation:mergeRequestAccept` |
//! | `gitlab` | `merge-request` | `mutation:mergeRequestCreate`, `mutation:mergeRequestUpdate`, `mutation:mergeRequestSetAssignees`, `mutation:mergeRequestSetDraft`, `mutation:mergeRequestSetLabels`, `mutation:mergeRequestSetLocked`, `mutation:mergeRequestSetMilestone`, `mutation:mergeRequestSetReviewers` |
//! | `gitlab` | `pipeline` | `mutation:pipelineCreate`, `mutation:pipelineRetry`, `mutation:pipelineCancel`, `mutation:pipelineDestroy`, `mutation:jobPlay`, `mutation:jobRetry`, `mutation:jobCancel` |
//! | `gitlab` | `push` | `commit` |
//! | `gitlab` | `snippet` | `mutation:createSnippet`, `mutation:updateSnippet`, `mutation:destroySnippet` |
//! | `huggingface` | `push` | `commit`, `xet-write` |
//! | `oci` | `pull` | `pull-token` |
//! | `oci` | `push` | `mount`, `push-token` |
//! | `oci` | `token` | `pull-token`, `push-token` |
//!
//! # What to know before relying on it
//!
//! - **An unusual spelling counts as a write.** Methods and paths are case-sensitive; a path that is
//!   not exactly the listed one writes, unless the method reads. A request by a reading method is
//!   also read as servers do that ignore case, merge slashes, decode escaped slashes or cut
//!   parameters: if it writes by one of these readings, it writes. Where the query decides (a fetch
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
