use proptest::prelude::*;

use super::*;

#[test]
fn what_no_operation_describes_reads_only_by_reading_methods() {
    check(
        "npm",
        "
        GET /a/b/c/d/e       -> other read
        OPTIONS /lodash      -> other read
        POST /lodash         -> other write
        put /lodash          -> other write
        get /lodash          -> other write
        Get /lodash          -> other write
        PROPFIND /lodash     -> other write
        POST /-/npm/v1/security/advisories/bulk/   -> other write
        POST /-/npm/v1/security/advisories/bulk;x  -> other write
        POST /-/npm/v1/Security/advisories/bulk    -> other write
        POST /-/npm/v1/security/advisories/bulk%20 -> other write
        ",
    );
}

#[test]
fn an_escape_does_not_hide_a_name() {
    check(
        "npm",
        "
        PUT /%40acme        -> publish write package=@acme
        GET /a%2Bb          -> view read package=a+b
        ",
    );
}

#[test]
fn a_request_that_names_another_method_writes() {
    for query in [
        "_method=DELETE",
        "x=1&_METHOD=put",
        "%5Fmethod=PUT",
        "$httpMethod=POST",
    ] {
        for service in [Some("npm"), Some("git"), None] {
            let line = format!("GET /lodash?{query}");
            assert!(
                told(service, Category::Unknown, &line).ends_with(" write"),
                "{line}"
            );
        }
    }
}

#[test]
fn without_a_service_the_category_and_the_method_tell() {
    for (category, line, expected) in [
        (Category::Webfetch, "GET /x", "- read"),
        (Category::Webfetch, "POST /x", "- write"),
        (Category::ModelApi, "POST /v1/x", "- call"),
        (Category::Mcp, "POST /mcp", "- call"),
        (Category::Mcp, "GET /mcp", "- read"),
        (
            Category::PackageRegistry,
            "POST /-/npm/v1/security/audits",
            "- read",
        ),
    ] {
        assert_eq!(told(None, category, line), expected, "{line}");
        assert_eq!(told(Some("no-such"), category, line), expected, "{line}");
    }
}

#[test]
fn any_request_can_be_read() {
    let services = Services::built_in();
    let target = "/[a-z@./;%2f5ce~7A-F0-9?&=+:{}*-]{0,60}";
    proptest!(|(method in "[A-Za-z]{0,8}", target in target)| {
        if let Ok(path) = Path::parse(target.as_bytes()) {
            for (name, _) in services.names() {
                services.read(Some(name), Category::Unknown, &method, &path);
            }
            services.read(None, Category::Unknown, &method, &path);
        }
    });
}

#[test]
fn a_method_in_other_case_writes() {
    let services = Services::built_in();
    proptest!(|(target in "/[a-z@./-]{0,40}")| {
        if let Ok(path) = Path::parse(target.as_bytes()) {
            for (name, _) in services.names() {
                let request_facts = services.read(Some(name), Category::Unknown, "get", &path);
                prop_assert_eq!(request_facts.action, Some(Action::Write));
            }
        }
    });
}
