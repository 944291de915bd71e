use super::check;

#[test]
fn npm() {
    check(
        "npm",
        "
        GET /lodash                                       -> view read package=lodash
        GET /@acme%2fui                                   -> view read package=@acme/ui
        GET /@acme%2Fui                                   -> view read package=@acme/ui
        GET /@acme/ui                                     -> view read package=@acme/ui
        GET /%40acme/ui                                   -> view read package=@acme/ui
        GET /lodash/4.17.21                               -> view read package=lodash version=4.17.21
        GET /@acme/ui/latest                              -> view read package=@acme/ui version=latest
        GET /lodash/                                      -> view read package=lodash
        HEAD /lodash                                      -> view read package=lodash
        GET /lodash/-/lodash-4.17.21.tgz                  -> download read package=lodash version=4.17.21
        GET /@acme/ui/-/ui-1.0.0-rc.1.tgz                 -> download read package=@acme/ui version=1.0.0-rc.1
        GET /@acme%2fui/-/ui-1.0.0.tgz                    -> download read package=@acme/ui version=1.0.0
        GET /lodash/-/evil-1.0.0.tgz                      -> download read package=lodash
        GET /-/v1/search?text=x                           -> query read
        GET /-/whoami                                     -> query read
        GET /-/package/lodash/dist-tags                   -> view read package=lodash
        GET /-/package/@acme%2fui/dist-tags               -> view read package=@acme/ui
        GET /-/package/@acme%2Fui/visibility              -> view read package=@acme/ui
        GET /-/package/@acme%2fui/collaborators           -> view read package=@acme/ui
        GET /-/npm/v1/attestations/@acme%2fui@1.0.0       -> view read package=@acme/ui version=1.0.0
        GET /-/npm/v1/attestations/@acme/ui@1.0.0         -> view read package=@acme/ui version=1.0.0
        GET /-/npm/v1/attestations/lodash@4.17.21         -> view read package=lodash version=4.17.21
        GET /-%2Fv1%2Fdone                                -> login write
        GET //-//v1/done                                  -> login write
        GET /-/v1/DONE;x                                  -> login write
        POST /-/npm/v1/security/advisories/bulk           -> audit read
        POST /-/npm/v1/security/audits/quick              -> audit read
        POST /-/npm/v1/security/other                     -> other write
        PUT /lodash                                       -> publish write package=lodash
        PUT /@acme%2fui                                   -> publish write package=@acme/ui
        PUT /@acme/ui                                     -> publish write package=@acme/ui
        PUT /lodash/-rev/3-abc                            -> unpublish write package=lodash
        DELETE /lodash/-rev/3-abc                         -> unpublish write package=lodash
        DELETE /@acme%2fui/-rev/3                         -> unpublish write package=@acme/ui
        DELETE /lodash/-/lodash-4.17.21.tgz/-rev/3        -> unpublish write package=lodash version=4.17.21
        PUT /-/package/lodash/dist-tags/latest            -> dist-tag write package=lodash
        DELETE /-/package/@acme/ui/dist-tags/beta         -> dist-tag write package=@acme/ui
        POST /-/package/lodash/access                     -> access write package=lodash
        PUT /-/team/acme/developers/user                  -> team write
        PUT /-/org/acme/user                              -> org write
        PUT /-/user/org.couchdb.user:ana                  -> login write
        POST /-/v1/login                                  -> login write
        DELETE /-/user/token/abc                          -> logout write
        POST /-/npm/v1/tokens                             -> token write
        DELETE /-/npm/v1/tokens/token/abc                 -> token write
        POST /-/npm/v1/oidc/token/exchange/package/lodash -> oidc write package=lodash
        ",
    );
}

#[test]
fn pypi() {
    check(
        "pypi",
        "
        POST /legacy/                                     -> upload write
        POST /legacy                                      -> upload write
        POST /legacy/x                                    -> other write
        GET /simple/                                      -> index read
        GET /simple/Foo_.Bar/                             -> index read package=foo-bar
        GET /simple/requests                              -> index read package=requests
        GET /pypi/requests/json                           -> view read package=requests
        GET /pypi/requests/2.34.2/json                    -> view read package=requests version=2.34.2
        GET /packages/ab/cd/ef/requests-2.34.2-py3-none-any.whl -> download read package=requests version=2.34.2
        GET /packages/ab/cd/ef/Azure_Core-1.0.tar.gz      -> download read package=azure-core version=1.0
        GET /packages/ab/cd/ef/a-1-2.tar.gz               -> download read
        GET /packages/x/azure_core-1.0-py3-none-any.whl.metadata -> download read package=azure-core version=1.0
        POST /_/oidc/mint-token                           -> oidc write
        GET /_/oidc/audience                              -> oidc-audience read
        GET /pypi?:action=file_upload                     -> legacy-action write
        GET /pypi?%3Aaction=file_upload                   -> legacy-action write
        GET /                                             -> browse read
        POST /pypi                                        -> upload write
        DELETE /simple/requests                           -> other write
        ",
    );
}

#[test]
fn cargo() {
    check(
        "cargo",
        "
        GET /config.json                                  -> index read
        GET /se/rd/serde                                  -> index read package=serde
        GET /3/l/log                                      -> index read package=log
        GET /1/a                                          -> index read package=a
        GET /crates/serde/serde-1.0.200.crate             -> download read package=serde version=1.0.200
        GET /crates/serde/1.0.200/download                -> download read package=serde version=1.0.200
        GET /api/v1/crates/serde/1.0.200/download         -> download read package=serde version=1.0.200
        GET /api/v1/crates/serde                          -> view read package=serde
        GET /api/v1/crates/serde/owners                   -> view read package=serde
        GET /api/v1/crates?q=serde                        -> query read
        PUT /api/v1/crates/new                            -> publish write
        PUT /api/v1/crates/new/                           -> other write
        DELETE /api/v1/crates/serde/1.0.0/yank            -> yank write package=serde version=1.0.0
        PUT /api/v1/crates/serde/1.0.0/unyank             -> unyank write package=serde version=1.0.0
        PUT /api/v1/crates/serde/owners                   -> owner write package=serde
        DELETE /api/v1/crates/serde/owners                -> owner write package=serde
        PUT /api/v1/me/tokens                             -> token write
        POST /api/v1/trusted_publishing/tokens            -> oidc write
        ",
    );
}

#[test]
fn oci() {
    check(
        "oci",
        "
        GET /v2/                                          -> ping read
        GET /v2/library/alpine/manifests/3.20             -> pull read repository=library/alpine version=3.20
        HEAD /v2/a/b/c/manifests/sha256:abc               -> pull read repository=a/b/c version=sha256:abc
        GET /v2/alpine/blobs/sha256:abc                   -> pull read repository=alpine version=sha256:abc
        GET /v2/acme/app/tags/list?n=10                   -> tags read repository=acme/app
        GET /v2/acme/app/referrers/sha256:abc             -> pull read repository=acme/app version=sha256:abc
        GET /v2/_catalog                                  -> catalog read
        POST /v2/acme/app/blobs/uploads/                  -> push write repository=acme/app
        POST /v2/acme/app/blobs/uploads/?mount=sha256:a&from=b -> mount write repository=acme/app
        PATCH /v2/acme/app/blobs/uploads/u-1?_state=x     -> push write repository=acme/app
        PUT /v2/acme/app/blobs/uploads/u-1?digest=sha256:a -> push write repository=acme/app
        PUT /v2/acme/app/manifests/latest                 -> push write repository=acme/app version=latest
        DELETE /v2/acme/app/manifests/sha256:abc          -> delete write repository=acme/app version=sha256:abc
        DELETE /v2/acme/app/blobs/uploads/u-1             -> cancel write repository=acme/app
        GET /token?service=s&scope=repository:acme/app:pull -> pull-token read repository=acme/app
        GET /token?scope=repository%3Aacme%2Fapp%3Apull&service=s -> pull-token read repository=acme/app
        GET /token?service=s                              -> pull-token read
        GET /token?scope=repository:acme/app:pull,push    -> push-token write
        GET /token?scope=repository:a:pull&scope=repository:b:push -> push-token write
        GET /token?scope=repository:a:pull+repository:b:push -> push-token write
        GET /token?scope=repository:a:pull%20repository:b:pull -> push-token write
        GET /token?SCOPE=repository:a:pull                -> push-token write
        GET /token?s%63ope=repository:a:push              -> push-token write
        GET /token?scope[]=repository:a:push              -> push-token write
        GET /token?service=s;scope=repository:a:push      -> push-token write
        GET /v2/token?scope=repository:a:*                -> push-token write
        GET /token?scope=repository:a:pull&scope=repository:b:pull -> pull-token read
        GET /token?scope=repository:a:pull&Scope=repository:b:pull -> push-token write
        POST /token                                       -> token ? OciToken
        POST /token/                                      -> other write
        POST /oauth2/exchange                             -> token ? OciToken
        ",
    );
}

#[test]
fn maven() {
    check(
        "maven",
        "
        GET /maven2/org/example/lib/maven-metadata.xml    -> metadata read package=org.example:lib
        GET /maven2/org/example/lib/maven-metadata.xml.sha1 -> metadata read package=org.example:lib
        GET /maven2/org/example/lib/1.0/lib-1.0.jar       -> download read package=org.example:lib version=1.0
        GET /m2/com/acme/app/2/app-2.pom                  -> download read package=com.acme:app version=2
        GET /search                                       -> other read
        PUT /maven2/org/example/lib/1.0/lib-1.0.jar       -> deploy write package=org.example:lib version=1.0
        PUT /acme/app/lib-1.0.jar                         -> deploy write
        POST /api/v1/publisher/upload?name=x              -> publish write
        DELETE /maven2/org/example/lib                    -> delete write
        ",
    );
}

#[test]
fn rubygems() {
    check(
        "rubygems",
        "
        GET /gems/rails-7.1.0.gem                         -> download read package=rails version=7.1.0
        GET /gems/nokogiri-1.16.0-x86_64-linux.gem        -> download read package=nokogiri version=1.16.0
        GET /gems/good-2evil-1.0.gem                      -> download read
        GET /info/rails                                   -> index read package=rails
        GET /quick/Marshal.4.8/rails-7.1.0.gemspec.rz     -> index read package=rails version=7.1.0
        GET /api/v1/gems/rails.json                       -> view read package=rails
        GET /api/v1/versions/rails/latest.json            -> view read package=rails
        GET /api/v2/rubygems/rails/versions/7.1.0.json    -> view read package=rails version=7.1.0
        POST /api/v1/gems                                 -> push write
        POST /api/v1/gems/                                -> other write
        DELETE /api/v1/gems/yank                          -> yank write
        POST /api/v1/gems/rails/owners                    -> owner write package=rails
        GET /api/v1/api_key                               -> sign-in write
        POST /api/v1/oidc/trusted_publisher/exchange_token -> oidc write
        ",
    );
}

#[test]
fn nuget() {
    check(
        "nuget",
        "
        GET /v3/index.json                                -> query read
        GET /v3-flatcontainer/newtonsoft.json/index.json  -> index read package=newtonsoft.json
        GET /v3-flatcontainer/x/1.0.0/x.1.0.0.nupkg       -> download read package=x version=1.0.0
        GET /v3/registration5-gz-semver2/x/index.json     -> index read package=x
        GET /api/v2/package/x/1.0.0                       -> download read package=x version=1.0.0
        PUT /api/v2/package                               -> push write
        PUT /api/v2/package/                              -> push write
        DELETE /api/v2/package/x/1.0.0                    -> delete write package=x version=1.0.0
        POST /api/v2/package/x/1.0.0                      -> relist write package=x version=1.0.0
        PUT /api/V2/package                               -> other write
        ",
    );
}

#[test]
fn hex() {
    check(
        "hex",
        "
        GET /tarballs/phoenix-1.7.0.tar                   -> download read package=phoenix version=1.7.0
        GET /tarballs/phoenix-1.7.0-rc.1.tar              -> download read package=phoenix version=1.7.0-rc.1
        GET /packages/phoenix                             -> index read package=phoenix
        GET /api/packages/phoenix                         -> view read package=phoenix
        POST /api/publish                                 -> publish write
        POST /api/packages/phoenix/releases               -> publish write package=phoenix
        DELETE /api/packages/phoenix/releases/1.0.0       -> revert write package=phoenix version=1.0.0
        POST /api/packages/phoenix/releases/1.0.0/retire  -> retire write package=phoenix version=1.0.0
        PUT /api/packages/phoenix/owners/eve              -> owner write package=phoenix
        POST /api/keys                                    -> key write
        ",
    );
}

#[test]
fn go() {
    check(
        "go",
        "
        GET /github.com/!burnt!sushi/toml/@v/v1.3.2.zip   -> download read package=github.com/BurntSushi/toml version=v1.3.2
        GET /golang.org/x/net/@v/v0.1.0.info              -> download read package=golang.org/x/net version=v0.1.0
        GET /golang.org/x/net/@v/list                     -> list read package=golang.org/x/net
        GET /golang.org/x/net/@latest                     -> list read package=golang.org/x/net
        GET /sumdb/sum.golang.org/lookup/x@v1             -> sumdb read
        POST /golang.org/x/net/@v/v0.1.0.zip              -> other write
        ",
    );
}
