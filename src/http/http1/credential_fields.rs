//! The names of the fields that carry a credential.

/// Fields that carry a credential, and nothing else.
const FIELDS: [&str; 14] = [
    "api-key",
    "apikey",
    "dd-api-key",
    "dd-application-key",
    "deploy-token",
    "job-token",
    "private-token",
    "x-api-key",
    "x-auth-key",
    "x-goog-api-key",
    "x-jfrog-art-api",
    "x-nuget-apikey",
    "x-registry-auth",
    "x-registry-config",
];

/// Fields that are called so at the end carry one as well.
const ENDINGS: [&str; 7] = [
    "-access-key",
    "-api-key",
    "-apikey",
    "-auth-token",
    "-authorization",
    "-secret",
    "-token",
];

/// But for these: a guard against forged forms, and what belongs to a signature whose key id is
/// compared.
const NO_CREDENTIALS: [&str; 4] = [
    "proxy-authorization",
    "x-amz-security-token",
    "x-csrf-token",
    "x-xsrf-token",
];

/// Whether a field, in lower case, is one for credentials and nothing else.
pub(crate) fn carries_credential(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else {
        return false;
    };
    let named = || FIELDS.contains(&name) || ENDINGS.iter().any(|end| name.ends_with(end));
    !NO_CREDENTIALS.contains(&name) && named()
}
