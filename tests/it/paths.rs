//! Paths as clients of registries, forges and clouds write them: each arrives at the origin as it was
//! sent, in plain HTTP and inside TLS, over HTTP/1.1 and HTTP/2.

use crate::inspect_http2::both;
use crate::kit::{Gate, Inside, Origin, Pki, TIERS, inspected, loopback};

const HOST: &str = "files.example.net";

const PATHS: &[&str] = &[
    // npm: a scope, at the root and behind the prefix of a proxying registry
    "/@acme%2fui",
    "/@acme%2Fui/-/ui-1.0.0.tgz",
    "/artifactory/api/npm/all/@acme%2fui",
    "/-/package/@acme%2fui/dist-tags",
    "/-/npm/v1/attestations/@acme%2fui@1.0.0",
    // forges: projects and branches with a slash
    "/api/v4/projects/acme%2Fapp/merge_requests?state=opened",
    "/repos/acme/app/branches/agent%2Ffix-1",
    "/api/models/acme/base/tree/refs%2Fpr%2F1",
    // clouds and certificates
    "/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Ainference-profile%2Feu.x-v1%3A0/invoke",
    "/ocsp/MFMwUTBPME0wSzAJBgUrDgMCGgUABBQ%2Fabc%2Bdef%3D%3D",
    "/ocsp/MFMwUTBPME0wSzAJBgUrDgMCGgUABBQ//abc+def==",
    // routes and empty segments
    "/app/[slug]/page.js",
    "/a|b^c",
    "//",
    "//a//b/",
    "/caf%c3%a9/100%25",
    "/a;v=1/b",
];

#[test]
fn a_path_arrives_as_it_was_sent() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    let mut client = gate.client();
    for path in PATHS {
        let answer = client.get(&format!("http://{HOST}:{}{path}", origin.port()));
        assert_eq!(answer.status(), 200, "{path}: {answer:?}");
        assert_eq!(origin.last().target(), *path);
    }
}

#[test]
fn a_path_inside_tls_arrives_as_it_was_sent() {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let rules = inspected("files", HOST, origin.port(), "");
    let inside = Inside::start(&pki, &[HOST], &format!("{TIERS}{rules}"));
    let authority = format!("{HOST}:{}", origin.port());
    let mut client = inside.enter(HOST, origin.port());
    for path in PATHS {
        let answer = client.inside("GET", &authority, path);
        assert_eq!(answer.status(), 200, "{path}: {answer:?}");
        assert_eq!(origin.last().target(), *path);
    }
}

#[test]
fn a_path_over_http2_arrives_as_it_was_sent() {
    let (origin, bench) = both(false, "");
    let client = bench.connect();
    for path in PATHS {
        let (status, body) = bench.get(&client, path);
        assert_eq!(status, 200, "{path}: {body}");
        let requests = origin.requests();
        let seen = requests.last().expect("a request");
        assert_eq!(Some(seen.target()), path.split('?').next());
    }
}
