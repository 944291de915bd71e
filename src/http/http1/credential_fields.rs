//! The names of header fields that carry a credential.

/// Fields that only carry a credential.
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

/// Suffixes of further such fields.
const ENDINGS: [&str; 7] = [
    "-access-key",
    "-api-key",
    "-apikey",
    "-auth-token",
    "-authorization",
    "-secret",
    "-token",
];

/// Exceptions: a guard against forged forms, and parts of a signature whose key id is compared.
const NO_CREDENTIALS: [&str; 4] = [
    "proxy-authorization",
    "x-amz-security-token",
    "x-csrf-token",
    "x-xsrf-token",
];

/// Whether a field, in lower case, only carries a credential.
pub(crate) fn carries_credential(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else {
        return false;
    };
    let named = || FIELDS.contains(&name) || ENDINGS.iter().any(|end| name.ends_with(end));
    !NO_CREDENTIALS.contains(&name) && named()
}
