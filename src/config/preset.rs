//! Settings of common issuers: their URLs, algorithms and claims. A key in `[[identity.issuer]]`
//! overrides the preset.

/// A common issuer.
#[derive(Debug)]
pub(super) struct Preset {
    /// `preset`.
    pub(super) name: &'static str,
    /// `issuer`; empty if each customer has a different one.
    pub(super) issuer: &'static str,
    /// `jwks`; empty if the keys are discovered.
    pub(super) jwks: &'static str,
    /// `algorithms`.
    pub(super) algorithms: &'static [&'static str],
    /// The prefix before the JWT.
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
        // No claim contains the repository: only `repositories` does.
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
            // For a pull request, `ref` is only the test merge.
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
            // The project whose code runs. For a merge request from a fork that is the fork,
            // although the job runs in its parent (`job_project_path`): a fork is trusted less than
            // its parent, and its tier is never looser (`beside`).
            ("repository", "{@forge}/{project_path}"),
            ("run", "pipeline_id"),
            ("task", "job_id"),
            ("user", "user_login"),
            ("worker", "runner_id"),
        ],
    },
];

/// Issuers that sign for every account: the claims that contain the account of a token.
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
    // The audience contains the pool's id.
    ("ccr", &["ccr:role"]),
];

/// Returns the claims of which a shared issuer needs one in `require`; `None` if the issuer has one
/// owner.
pub(super) fn owners(issuer: &str) -> Option<&'static [&'static str]> {
    let issuer = issuer.trim_end_matches('/');
    let shared = SHARED.iter().find(|(shared, _)| *shared == issuer);
    shared.map(|(_, claims)| *claims)
}
