//! What is known of the issuers that many use: their URLs, their algorithms, and which claim says
//! what. A key that is written in `[[identity.issuer]]` goes before it.

/// An issuer that many use.
#[derive(Debug)]
pub(super) struct Preset {
    /// `preset`.
    pub(super) name: &'static str,
    /// `issuer`; empty where each customer has one.
    pub(super) issuer: &'static str,
    /// `jwks`; empty: by discovery.
    pub(super) jwks: &'static str,
    /// `algorithms`.
    pub(super) algorithms: &'static [&'static str],
    /// What stands before the JWT.
    pub(super) prefix: &'static str,
    /// `require`.
    pub(super) require: &'static [(&'static str, &'static str)],
    /// `claims`.
    pub(super) claims: &'static [(&'static str, &'static str)],
}

/// Every preset, by name.
pub(super) const PRESETS: [Preset; 5] = [
    Preset {
        name: "buildkite",
        issuer: "https://agent.buildkite.com",
        jwks: "",
        algorithms: &["RS256"],
        prefix: "",
        require: &[],
        // No claim names the repository: only `repositories` does.
        claims: &[
            ("commit", "build_commit"),
            ("organization", "organization_slug"),
            ("pipeline", "{organization_slug}/{pipeline_slug}"),
            ("ref", "build_tag|build_branch"),
            ("run", "build_number"),
            ("task", "step_key|job_id"),
            ("worker", "agent_id"),
        ],
    },
    Preset {
        name: "circleci",
        issuer: "",
        jwks: "",
        algorithms: &["RS256"],
        prefix: "",
        require: &[],
        claims: &[
            ("organization", "oidc.circleci.com/org-id"),
            ("pipeline", "oidc.circleci.com/pipeline-definition-id"),
            ("ref", "oidc.circleci.com/vcs-ref"),
            ("repository", "oidc.circleci.com/vcs-origin"),
            ("run", "oidc.circleci.com/pipeline-id"),
            ("task", "oidc.circleci.com/job-id"),
        ],
    },
    Preset {
        name: "claude-code",
        issuer: "ccr",
        jwks: "https://api.anthropic.com/v1/code/.well-known/jwks.json",
        algorithms: &["ES256"],
        prefix: "sk-ant-cc-",
        require: &[("ccr:role", "session_worker")],
        claims: &[
            ("agent", "=claude-code"),
            ("organization", "ccr:org_id"),
            ("session", "ccr:session_id"),
            ("user", "act.email|act.attested_by.sub|act.sub"),
            ("worker", "act.act.sub"),
        ],
    },
    Preset {
        name: "github-actions",
        issuer: "https://token.actions.githubusercontent.com",
        jwks: "",
        algorithms: &["RS256"],
        prefix: "",
        require: &[],
        claims: &[
            ("commit", "sha"),
            ("organization", "repository_owner"),
            ("pipeline", "workflow"),
            // Of a pull request, `ref` is only the merge that is tried.
            ("ref", "head_ref|ref"),
            ("repository", "{@forge}/{repository}"),
            ("run", "run_id"),
            ("task", "check_run_id"),
            ("user", "actor"),
            ("worker", "runner_environment"),
        ],
    },
    Preset {
        name: "gitlab",
        issuer: "https://gitlab.com",
        jwks: "",
        algorithms: &["RS256"],
        prefix: "",
        require: &[],
        claims: &[
            ("beside", "{@forge}/{job_project_path}"),
            ("commit", "sha"),
            ("organization", "namespace_path"),
            ("pipeline", "ci_config_ref_uri"),
            ("ref", "ref"),
            // The project whose code runs. For a merge request of a fork that is the fork, although
            // the job runs in its parent (`job_project_path`): a fork is not worth what its parent is,
            // and no looser than it either (`beside`).
            ("repository", "{@forge}/{project_path}"),
            ("run", "pipeline_id"),
            ("task", "job_id"),
            ("user", "user_login"),
            ("worker", "runner_id"),
        ],
    },
];

/// Issuers that sign for every account: the claims that name the account of a token.
const SHARED: [(&str, &[&str]); 5] = [
    (
        "https://agent.buildkite.com",
        &["organization_id", "organization_slug"],
    ),
    (
        "https://gitlab.com",
        &[
            "namespace_id",
            "project_id",
            "namespace_path",
            "project_path",
            "job_namespace_id",
            "job_project_id",
        ],
    ),
    (
        "https://oidc.circleci.com",
        &["oidc.circleci.com/org-id", "oidc.circleci.com/project-id"],
    ),
    (
        "https://token.actions.githubusercontent.com",
        &["repository_owner_id", "repository_id", "enterprise_id"],
    ),
    // Its audience says whose pool it is.
    ("ccr", &["ccr:role"]),
];

/// The claims of which a shared issuer needs one in `require`; `None`: it is its owner's alone.
pub(super) fn owners(issuer: &str) -> Option<&'static [&'static str]> {
    let issuer = issuer.trim_end_matches('/');
    let shared = SHARED.iter().find(|(shared, _)| *shared == issuer);
    shared.map(|(_, claims)| *claims)
}
