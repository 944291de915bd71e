//! Everyday commands of package managers and forges, in the words of their services.
//!
//! A rule that allows a command allows each word in its row: `npm publish` first reads (`view`) and
//! then writes (`publish`). Where the body tells what is done, the row says so: a GraphQL query
//! becomes `graphql-query` and reads, a fetch of git becomes `fetch` and reads.
//!
//! npm, pip, twine and cargo were recorded against a server of this project on 2026-11-29; the
//! requests of the others are taken from their documentation. A test reads each request and
//! holds this table to the result (`src/policy/service/tests/commands.toml`).
//!
//! | command | service | what it does |
//! |---|---|---|
//! | `npm view @acme/ui` | `npm` | `view` (read) |
//! | `npm install @acme/ui@1.0.0` | `npm` | `view` (read), `download` (read) |
//! | `npm audit` | `npm` | `audit` (read) |
//! | `npm outdated` | `npm` | `view` (read) |
//! | `npm update` | `npm` | `view` (read) |
//! | `npm pack @acme/ui` | `npm` | `view` (read), `download` (read) |
//! | `npm search ui` | `npm` | `query` (read) |
//! | `npm ping` | `npm` | `query` (read) |
//! | `npm whoami` | `npm` | `query` (read) |
//! | `npm publish` | `npm` | `view` (read), `publish` (write) |
//! | `npm unpublish @acme/ui` | `npm` | `view` (read), `unpublish` (write) |
//! | `npm deprecate @acme/ui@1.0.0` | `npm` | `view` (read), `publish` (write) |
//! | `npm star @acme/ui` | `npm` | `query` (read), `view` (read), `publish` (write) |
//! | `npm stars ana` | `npm` | `query` (read) |
//! | `npm dist-tag ls @acme/ui` | `npm` | `view` (read) |
//! | `npm dist-tag add @acme/ui@1.0.0 beta` | `npm` | `view` (read), `dist-tag` (write) |
//! | `npm owner ls @acme/ui` | `npm` | `view` (read) |
//! | `npm owner add cy @acme/ui` | `npm` | `query` (read), `view` (read) |
//! | `npm owner rm bo @acme/ui` | `npm` | `query` (read), `view` (read), `unpublish` (write) |
//! | `npm access list packages acme` | `npm` | `query` (read) |
//! | `npm access list collaborators @acme/ui` | `npm` | `view` (read) |
//! | `npm access get status @acme/ui` | `npm` | `view` (read) |
//! | `npm access set status=public @acme/ui` | `npm` | `access` (write), `view` (read) |
//! | `npm access set mfa=publish @acme/ui` | `npm` | `access` (write) |
//! | `npm access grant read-only acme:dev @acme/ui` | `npm` | `team` (write) |
//! | `npm access revoke acme:dev @acme/ui` | `npm` | `team` (write) |
//! | `npm team ls acme` | `npm` | `query` (read) |
//! | `npm team create acme:dev` | `npm` | `team` (write) |
//! | `npm team destroy acme:dev` | `npm` | `team` (write) |
//! | `npm team add acme:dev ana` | `npm` | `team` (write) |
//! | `npm team rm acme:dev ana` | `npm` | `team` (write) |
//! | `npm org ls acme` | `npm` | `query` (read) |
//! | `npm org set acme ana developer` | `npm` | `org` (write) |
//! | `npm org rm acme ana` | `npm` | `org` (write), `query` (read) |
//! | `npm profile get` | `npm` | `query` (read) |
//! | `npm profile set fullname x` | `npm` | `query` (read), `profile` (write) |
//! | `npm token list` | `npm` | `query` (read) |
//! | `npm token revoke abcdef` | `npm` | `query` (read), `token` (write) |
//! | `npm docs @acme/ui` | `npm` | `view` (read) |
//! | `npm diff --diff=@acme/ui@1.0.0` | `npm` | `view` (read), `download` (read) |
//! | `npm trust list @acme/ui` | `npm` | `view` (read) |
//! | `npm logout` | `npm` | `logout` (write) |
//! | `npm audit signatures` | `npm` | `query` (read), `view` (read) |
//! | `npm login` | `npm` | `login` (write) |
//! | `npm dist-tag rm @acme/ui beta` | `npm` | `view` (read), `dist-tag` (write) |
//! | `npm unpublish @acme/ui@1.0.0` | `npm` | `view` (read), `unpublish` (write) |
//! | `pip install demo` | `pypi` | `index` (read), `download` (read) |
//! | `pip download demo` | `pypi` | `index` (read), `download` (read) |
//! | `pip wheel demo` | `pypi` | `index` (read) |
//! | `pip index versions demo` | `pypi` | `index` (read) |
//! | `pip search demo` | `pypi` | `upload` (write) |
//! | `twine upload demo-1.0-py3-none-any.whl` | `pypi` | `upload` (write) |
//! | `twine register demo-1.0-py3-none-any.whl` | `pypi` | `upload` (write) |
//! | `cargo fetch` | `cargo` | `index` (read), `download` (read) |
//! | `cargo update` | `cargo` | `index` (read) |
//! | `cargo add demo` | `cargo` | `index` (read) |
//! | `cargo search demo` | `cargo` | `query` (read) |
//! | `cargo publish` | `cargo` | `index` (read), `publish` (write) |
//! | `cargo yank demo@1.0.0` | `cargo` | `index` (read), `yank` (write) |
//! | `cargo yank --undo demo@1.0.0` | `cargo` | `index` (read), `unyank` (write) |
//! | `cargo owner --list demo` | `cargo` | `index` (read), `view` (read) |
//! | `cargo owner --add ana demo` | `cargo` | `index` (read), `owner` (write) |
//! | `cargo owner --remove ana demo` | `cargo` | `index` (read), `owner` (write) |
//! | `cargo install demo` | `cargo` | `index` (read) |
//! | `gem install rails` | `rubygems` | `index` (read), `download` (read) |
//! | `gem fetch rails` | `rubygems` | `index` (read), `download` (read) |
//! | `gem search rails` | `rubygems` | `index` (read) |
//! | `gem push demo-1.0.0.gem` | `rubygems` | `push` (write) |
//! | `gem yank demo -v 1.0.0` | `rubygems` | `yank` (write) |
//! | `gem owner demo` | `rubygems` | `view` (read) |
//! | `gem owner demo --add ana@acme.example` | `rubygems` | `owner` (write) |
//! | `gem owner demo --remove ana@acme.example` | `rubygems` | `owner` (write) |
//! | `gem signin` | `rubygems` | `query` (read), `sign-in` (write) |
//! | `go get example.com/Acme/lib@v1.2.3` | `go` | `download` (read) |
//! | `go list -m -versions example.com/lib` | `go` | `list` (read) |
//! | `go mod download` | `go` | `download` (read), `sumdb` (read) |
//! | `go install example.com/lib@latest` | `go` | `list` (read), `download` (read) |
//! | `mvn compile` | `maven` | `download` (read) |
//! | `mvn versions:display-dependency-updates` | `maven` | `metadata` (read) |
//! | `mvn deploy` | `maven` | `metadata` (read), `deploy` (write) |
//! | `mvn central-publishing:publish` | `maven` | `publish` (write) |
//! | `gh repo clone acme/app` | `github` | `graphql` (by its body), `fetch` (read), `fetch` (by its body) |
//! | `gh repo view acme/app` | `github` | `graphql` (by its body) |
//! | `gh repo create app` | `github` | `graphql` (by its body) |
//! | `gh repo fork acme/app` | `github` | `fork` (write) |
//! | `gh repo delete acme/app` | `github` | `administer` (write) |
//! | `gh pr list` | `github` | `graphql` (by its body) |
//! | `gh pr create` | `github` | `graphql` (by its body) |
//! | `gh pr diff 1` | `github` | `graphql` (by its body), `view` (read) |
//! | `gh pr merge 1` | `github` | `graphql` (by its body) |
//! | `gh issue create` | `github` | `graphql` (by its body) |
//! | `gh issue comment 1` | `github` | `graphql` (by its body) |
//! | `gh release list` | `github` | `graphql` (by its body) |
//! | `gh release create v1` | `github` | `release` (write) |
//! | `gh release upload v1 app.zip` | `github` | `view` (read), `release` (write) |
//! | `gh release download v1` | `github` | `view` (read), `download` (read) |
//! | `gh workflow run ci.yml` | `github` | `dispatch` (write) |
//! | `gh run list` | `github` | `view` (read) |
//! | `gh run rerun 1` | `github` | `actions` (write) |
//! | `gh secret set NAME` | `github` | `view` (read), `actions` (write) |
//! | `gh gist create` | `github` | `gist` (write) |
//! | `gh search repos x` | `github` | `query` (read) |
//! | `gh api repos/acme/app/branches/agent%2Fx` | `github` | `view` (read) |
//! | `gh auth login` | `github` | `sign-in` (write) |
//! | `glab repo clone acme/app` | `gitlab` | `view` (read), `fetch` (read), `fetch` (by its body) |
//! | `glab repo view acme/app` | `gitlab` | `view` (read) |
//! | `glab repo create app` | `gitlab` | `create-project` (write) |
//! | `glab repo fork acme/app` | `gitlab` | `fork` (write) |
//! | `glab mr list` | `gitlab` | `view` (read) |
//! | `glab mr create` | `gitlab` | `merge-request` (write) |
//! | `glab mr merge 1` | `gitlab` | `merge` (write) |
//! | `glab mr note 1` | `gitlab` | `comment` (write) |
//! | `glab issue list` | `gitlab` | `view` (read) |
//! | `glab issue create` | `gitlab` | `issue` (write) |
//! | `glab issue note 1` | `gitlab` | `comment` (write) |
//! | `glab ci list` | `gitlab` | `view` (read) |
//! | `glab ci run` | `gitlab` | `pipeline` (write) |
//! | `glab ci retry 1` | `gitlab` | `pipeline` (write) |
//! | `glab ci lint` | `gitlab` | `render` (read) |
//! | `glab release create v1` | `gitlab` | `release` (write) |
//! | `glab variable set NAME` | `gitlab` | `administer` (write) |
//! | `glab snippet create` | `gitlab` | `snippet` (write) |
//! | `glab repo contributors` | `gitlab` | `view` (read) |
