use super::{Category, check, told};

const GIT: &str = "
    GET /acme/app.git/info/refs?service=git-upload-pack   -> fetch read repository=acme/app
    GET /acme/app/info/refs?service=git-upload-pack       -> fetch read repository=acme/app
    GET /g/sub/app.git/info/refs                          -> fetch read repository=g/sub/app
    GET /acme/app.git/info/refs?service=git-receive-pack  -> push write repository=acme/app
    POST /acme/app.git/git-upload-pack                    -> fetch ? GitFetch repository=acme/app
    POST /acme/app.git/git-receive-pack                   -> push write GitPush repository=acme/app
    GET /acme/app.git/objects/info/packs                  -> fetch read repository=acme/app
    POST /acme/app.git/info/lfs/objects/batch             -> lfs-batch ? LfsBatch repository=acme/app
    GET /acme/app.git/info/lfs/locks?path=x               -> lfs-locks read repository=acme/app
    POST /acme/app.git/info/lfs/locks/verify              -> lfs-locks ? LfsVerify repository=acme/app
    POST /acme/app.git/info/lfs/locks                     -> lfs-lock write repository=acme/app
    POST /acme/app.git/info/lfs/locks/7/unlock            -> lfs-unlock write repository=acme/app
    PUT /acme/app.git/info/lfs/objects/abc                -> lfs-upload write repository=acme/app
    ";

#[test]
fn git() {
    check("git", GIT);
}

#[test]
fn a_forge_without_a_service_of_its_own_speaks_git() {
    for line in GIT.lines().filter(|line| line.contains("->")) {
        let (request, expected) = line.trim().split_once("->").unwrap();
        let found = told(None, Category::SourceControl, request.trim());
        assert_eq!(found, expected.trim(), "{request}");
    }
}

#[test]
fn git_reads_by_post_at_forges_only() {
    for category in Category::ALL {
        for path in [
            "git-upload-pack",
            "info/lfs/locks/verify",
            "info/lfs/objects/batch",
        ] {
            let found = told(None, category, &format!("POST /x/{path}"));
            let expected = match category {
                Category::SourceControl => continue,
                Category::Mcp | Category::ModelApi => "- call",
                _ => "- write",
            };
            assert_eq!(found, expected, "{category:?} {path}");
        }
        let announced = told(None, category, "GET /x/info/refs?service=git-receive-pack");
        assert!(announced.contains(" write"), "{category:?}: {announced}");
    }
}

#[test]
fn a_push_cannot_be_spelled_as_a_fetch() {
    for query in [
        "service=git-upload-pack&service=git-receive-pack",
        "service=git-receive-pack&service=git-upload-pack",
        "service=git-upload-pack&service=git-upload-pack",
        "service=git%2Dreceive%2Dpack",
        "service=git%2Dupload%2Dpack",
        "s%65rvice=git-receive-pack",
        "service=git-upload-pack&s%65rvice=git-receive-pack",
        "service=git-upload-pack;service=git-receive-pack",
        "x=1;service=git-receive-pack",
        "Service=git-receive-pack",
        "service[]=git-receive-pack",
        "service+=git-receive-pack",
        "service",
        "?service=git-receive-pack",
        "=&service=git-receive-pack",
    ] {
        for ending in ["", "/", ";v=1"] {
            let line = format!("GET /acme/app/info/refs{ending}?{query}");
            assert_eq!(
                told(None, Category::SourceControl, &line),
                "push write repository=acme/app",
                "{line}"
            );
        }
    }
}

#[test]
fn a_forge_speaks_git_too() {
    for service in ["github", "gitlab", "huggingface"] {
        check(service, GIT);
    }
}

#[test]
fn github() {
    check(
        "github",
        "
        POST /graphql                                     -> graphql ? GraphQl
        POST /api/graphql                                 -> graphql ? GraphQl
        GET /graphql?query=mutation                       -> graphql write
        POST /graphql/                                    -> other write
        POST /Graphql                                     -> other write
        POST /graphql-explorer                            -> other write
        POST /markdown                                    -> render read
        POST /markdown/x                                  -> other write
        GET /repos/acme/app                               -> view read repository=acme/app
        GET /repos/acme/app.git                           -> view read repository=acme/app
        GET /repos/acme/app/issues?state=open             -> view read repository=acme/app
        GET /repos/acme/app/tarball/main                  -> download read repository=acme/app
        GET /api/v3/repos/acme/app/pulls                  -> view read repository=acme/app
        GET /user                                         -> query read
        GET /repositories/1234/contents                   -> query read
        POST /user/repos                                  -> create-repository write
        POST /repos/acme/app/forks                        -> fork write repository=acme/app
        POST /gists                                       -> gist write
        PATCH /gists/abc                                  -> gist write
        GET /gists/abc                                    -> query read
        PUT /repos/acme/app/contents/a/b.txt              -> commit write repository=acme/app
        POST /repos/acme/app/git/refs                     -> commit write repository=acme/app
        PATCH /repos/acme/app/git/refs/heads/main         -> commit write repository=acme/app
        PUT /repos/acme/app/pulls/7/merge                 -> merge write repository=acme/app
        POST /repos/acme/app/pulls                        -> pull-request write repository=acme/app
        POST /repos/acme/app/pulls/7/reviews              -> review write repository=acme/app
        POST /repos/acme/app/issues                       -> issue write repository=acme/app
        POST /repos/acme/app/issues/7/comments            -> comment write repository=acme/app
        POST /api/v3/repos/acme/app/issues/7/comments     -> comment write repository=acme/app
        POST /repos/acme/app/releases                     -> release write repository=acme/app
        POST /repos/acme/app/releases/1/assets?name=x     -> release write repository=acme/app
        POST /repos/acme/app/releases/generate-notes      -> render read repository=acme/app
        POST /repos/acme/app/dispatches                   -> dispatch write repository=acme/app
        POST /repos/acme/app/actions/workflows/ci.yml/dispatches -> dispatch write repository=acme/app
        POST /repos/acme/app/actions/runs/1/rerun         -> actions write repository=acme/app
        DELETE /repos/acme/app                            -> administer write repository=acme/app
        PUT /repos/acme/app/collaborators/eve             -> administer write repository=acme/app
        POST /repos/acme/app/statuses/abc                 -> edit write repository=acme/app
        PUT /repositories/1234/contents/x                 -> other write
        PUT /REPOS/acme/app/contents/x                    -> other write
        GET /acme/app/releases/download/v1/x.tgz          -> download read repository=acme/app
        GET /acme/app/archive/refs/heads/main.zip         -> download read repository=acme/app
        GET /acme/app/tar.gz/refs/tags/v1                 -> download read repository=acme/app
        GET /acme/app/main/README.md                      -> view read repository=acme/app
        POST /login/oauth/access_token                    -> sign-in write
        GET /logout                                       -> sign-out write
        POST /copilot/chat/threads                        -> copilot call
        ",
    );
}

#[test]
fn gitlab() {
    check(
        "gitlab",
        "
        POST /api/graphql                                 -> graphql ? GraphQl
        GET /api/graphql?query=x                          -> graphql write
        GET /api/v4/projects/42/issues                    -> view read repository=42
        GET /api/v4/version                               -> query read
        POST /api/v4/projects/42/issues                   -> issue write repository=42
        POST /api/v4/projects/42/issues/1/notes           -> comment write repository=42
        POST /api/v4/projects/42/merge_requests           -> merge-request write repository=42
        PUT /api/v4/projects/42/merge_requests/1/merge    -> merge write repository=42
        POST /api/v4/projects/42/repository/commits       -> commit write repository=42
        PUT /api/v4/projects/42/repository/files/a        -> commit write repository=42
        POST /api/v4/projects/42/pipeline                 -> pipeline write repository=42
        POST /api/v4/projects/42/trigger/pipeline         -> pipeline write repository=42
        PUT /api/v4/projects/42/packages/npm/x            -> publish write repository=42
        GET /api/v4/projects/42/packages/npm/x            -> install read repository=42
        PUT /api/v4/projects/42/variables/X               -> administer write repository=42
        POST /api/v4/projects/42/star                     -> edit write repository=42
        POST /api/v4/projects                             -> create-project write
        POST /api/v4/snippets                             -> snippet write
        POST /api/v4/markdown                             -> render read
        POST /api/v4/mcp                                  -> mcp call Mcp
        POST /api/v4/code_suggestions/completions         -> duo call
        GET /users/sign_out                               -> sign-out write
        GET /jwt/auth?scope=repository:g/s/app:pull       -> pull-token read repository=g/s/app
        GET /jwt/auth?scope=repository:g/s/app:push,pull  -> push-token write
        GET /group/sub/app/-/archive/main/app.zip         -> view read repository=group/sub/app
        ",
    );
}

#[test]
fn huggingface() {
    check(
        "huggingface",
        "
        GET /acme/model/resolve/main/config.json          -> download read repository=acme/model
        HEAD /datasets/acme/set/resolve/main/a/b.parquet  -> download read repository=datasets/acme/set
        GET /api/models/acme/model                        -> view read repository=acme/model
        GET /api/datasets/acme/set/tree/main              -> view read repository=datasets/acme/set
        POST /api/models/acme/model/paths-info/main       -> view read repository=acme/model
        GET /api/models/acme/model/xet-read-token/main    -> download read repository=acme/model
        GET /api/models/acme/model/xet-write-token/main   -> xet-write write repository=acme/model
        GET /api/models/old/xet-write-token/main          -> xet-write write repository=old
        GET /api/buckets/acme/b/xet-write-token           -> xet-write write
        GET /old/resolve/main/config.json                 -> download read repository=old
        GET /api/models/old                               -> view read repository=old
        GET /api/datasets/acme/set/xet-write-token/main/  -> xet-write write repository=datasets/acme/set
        POST /api/models/acme/model/commit/main           -> commit write repository=acme/model
        POST /api/spaces/acme/app/preupload/main          -> commit write repository=spaces/acme/app
        POST /api/repos/create                            -> create-repository write
        DELETE /api/repos/delete                          -> delete-repository write
        POST /api/models/acme/model/discussions           -> edit write repository=acme/model
        POST /datasets/acme/set.git/git-receive-pack      -> push write GitPush repository=datasets/acme/set
        ",
    );
}
