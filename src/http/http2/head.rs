//! Converts heads between HTTP/2 and the shared head reader.

use crate::http::http1::{
    BodyLength, HeadError, HeadLimits, HeadParts, Method, Name, Onward, RequestHead, ResponseHead,
    Version, onward_fields, put_host,
};
use bytes::{BufMut, BytesMut};
use h2::ext::Protocol;
use http::header::{COOKIE, HOST, HeaderName, HeaderValue};
use http::request::Parts;

use super::fragments::Fragment;

/// The one protocol to which a stream may change.
const WEBSOCKET: &str = "websocket";

/// Reads the head of a request as strictly as one of HTTP/1.1: with the same checks of the same
/// parts.
///
/// Without a length the body lasts until the stream ends. `sockets`: whether the gate offered the
/// client WebSocket streams (RFC 8441).
pub(super) fn request(
    parts: &Parts,
    fragment: Fragment,
    ended: bool,
    limits: HeadLimits,
    sockets: bool,
) -> Result<RequestHead, HeadError> {
    let extended = is_socket(parts, ended, sockets)?;
    // The parts of a cookie are joined below, so they are counted before.
    if parts.headers.len() > limits.fields {
        return Err(HeadError::TooLarge);
    }
    let mut head = told_apart(parts, fragment, extended)?.read(limits)?;
    head.version = Version::Http2;
    head.keep_alive = false;
    if extended {
        // It must not be passed on as a plain GET, even if its fields break the upgrade.
        if head.upgrade() != Some(WEBSOCKET) || !head.body.is_empty() {
            return Err(HeadError::Socket);
        }
        head.extended = true;
        return Ok(head);
    }
    if !ended && head.body == BodyLength::None && head.method != Method::Connect {
        if has_no_content(parts) {
            return Err(HeadError::UnexpectedBody);
        }
        head.body = BodyLength::UntilClose;
    }
    Ok(head)
}

/// Whether the method of a request only reads: the policy judges a read, so content would go out
/// unjudged.
pub(super) fn has_no_content(parts: &Parts) -> bool {
    let method = &parts.method;
    let reads = [http::Method::GET, http::Method::HEAD, http::Method::OPTIONS];
    reads.contains(method) && parts.extensions.get::<Protocol>().is_none()
}

/// Whether the request is an extended CONNECT (RFC 8441 section 4). The only accepted kind is a
/// WebSocket over TLS, if the gate offered it.
fn is_socket(parts: &Parts, ended: bool, offered: bool) -> Result<bool, HeadError> {
    let Some(protocol) = parts.extensions.get::<Protocol>() else {
        return Ok(false);
    };
    if !offered || protocol.as_str() != WEBSOCKET {
        return Err(HeadError::Protocol);
    }
    let uri = &parts.uri;
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let whole = uri.scheme_str() == Some("https")
        && uri.authority().is_some()
        && path.starts_with('/')
        && parts.method == http::Method::CONNECT;
    if !whole || ended {
        return Err(HeadError::Socket);
    }
    Ok(true)
}

/// Returns the parts of a head, as HTTP/1.1 would have them.
fn told_apart(parts: &Parts, fragment: Fragment, extended: bool) -> Result<HeadParts, HeadError> {
    let uri = &parts.uri;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    // The library removed the fragment: with an empty one the target is refused as in HTTP/1.
    let hash: &[u8] = match fragment {
        Fragment::Absent => b"",
        Fragment::Present => b"#",
        Fragment::Unknown => return Err(HeadError::RequestLine),
    };
    let method = if extended {
        "GET"
    } else {
        parts.method.as_str()
    };
    // RFC 9113 section 8.3.1.
    if !(path.is_empty() || path == "*" || path.starts_with('/')) {
        return Err(HeadError::RequestLine);
    }
    let (authority, path) = (authority.as_bytes(), path.as_bytes());
    let mut head = match uri.scheme_str() {
        // RFC 9113 section 8.5: the target is only the authority.
        _ if parts.method == http::Method::CONNECT && !extended => {
            if uri.scheme().is_some() || !path.is_empty() || !hash.is_empty() {
                return Err(HeadError::RequestLine);
            }
            HeadParts::new(method, &[authority])
        }
        Some(scheme) if path != b"*" => {
            HeadParts::new(method, &[scheme.as_bytes(), b"://", authority, path, hash])
        }
        _ => HeadParts::new(method, &[path, hash]),
    };
    head.field("Host", &[authority]);
    if extended {
        head.field("Connection", &[b"Upgrade"]);
        head.field("Upgrade", &[WEBSOCKET.as_bytes()]);
    }
    for (name, value) in &parts.headers {
        match *name {
            // RFC 9113 section 8.3.1: `Host` must not differ from the authority.
            HOST if value.as_bytes().eq_ignore_ascii_case(authority) => {}
            HOST => return Err(HeadError::Host),
            COOKIE => {}
            _ => head.field(name.as_str(), &[value.as_bytes()]),
        }
    }
    add_cookies(parts, &mut head);
    Ok(head)
}

/// Joins the parts of a cookie into one field (RFC 9113 section 8.2.3).
fn add_cookies(parts: &Parts, head: &mut HeadParts) {
    let mut value: Vec<&[u8]> = Vec::new();
    for crumb in parts.headers.get_all(COOKIE) {
        if !value.is_empty() {
            value.push(b"; ");
        }
        value.push(crumb.as_bytes());
    }
    if !value.is_empty() {
        head.field(COOKIE.as_str(), &value);
    }
}

/// Returns the head of a response, without the fields of an HTTP/1 connection (RFC 9113 section
/// 8.2.2); a stream changes its protocol with 200 (RFC 8441 section 5).
pub(super) fn response(head: &ResponseHead) -> Option<http::Response<()>> {
    let mut response = http::Response::new(());
    if !head.is_upgrade() {
        *response.status_mut() = http::StatusCode::from_u16(head.status).ok()?;
    }
    for field in head.fields.iter() {
        let passes = !belongs_to_http1(field.known);
        if passes && !append(response.headers_mut(), field.name, field.value) {
            return None;
        }
    }
    Some(response)
}

/// Returns the request for an origin: the judged target and the fields that are passed on, without
/// fields of HTTP/1 only. `None` if HTTP/2 cannot represent it.
pub(crate) fn onward_request(head: &RequestHead, onward: Onward<'_>) -> Option<http::Request<()>> {
    let mut authority = Vec::new();
    put_host(onward.target, onward.tls, &mut authority);
    let uri = http::Uri::builder()
        .scheme("https")
        .authority(&*authority)
        .path_and_query(onward.path.as_str())
        .build()
        .ok()?;
    let mut request = http::Request::new(());
    if head.extended {
        *request.method_mut() = http::Method::CONNECT;
        let protocol = Protocol::from_static(WEBSOCKET);
        request.extensions_mut().insert(protocol);
    } else {
        let method = http::Method::from_bytes(head.method.as_str().as_bytes());
        *request.method_mut() = method.ok()?;
    }
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    let mut whole = true;
    let fields = request.headers_mut();
    onward_fields(head, onward, |name, value| {
        if !belongs_to_http1(Name::of(name)) {
            whole &= append(fields, name, value);
        }
    });
    whole.then_some(request)
}

/// Adds a field; `false` if it is invalid.
fn append(fields: &mut http::HeaderMap, name: &[u8], value: &[u8]) -> bool {
    let field = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value));
    let (Ok(name), Ok(value)) = field else {
        return false;
    };
    fields.append(name, value);
    true
}

/// Writes the head of a response as HTTP/1; `opened`: whether the stream is a WebSocket now.
pub(super) fn written(
    status: http::StatusCode,
    fields: &http::HeaderMap,
    opened: bool,
) -> bytes::Bytes {
    let mut text = BytesMut::with_capacity(1024);
    if opened {
        let upgrade = b"HTTP/1.1 101 \r\nConnection: Upgrade\r\nUpgrade: ";
        put(&mut text, &[upgrade, WEBSOCKET.as_bytes(), b"\r\n"]);
    } else {
        put(
            &mut text,
            &[b"HTTP/1.1 ", status.as_str().as_bytes(), b" \r\n"],
        );
    }
    for (name, value) in fields {
        put(
            &mut text,
            &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"],
        );
    }
    put(&mut text, &[b"\r\n"]);
    text.freeze()
}

fn belongs_to_http1(name: Name) -> bool {
    matches!(
        name,
        Name::Connection
            | Name::KeepAlive
            | Name::ProxyConnection
            | Name::TransferEncoding
            | Name::Upgrade
    )
}

fn put(text: &mut BytesMut, parts: &[&[u8]]) {
    for part in parts {
        text.put_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::http::http1::parse_request;
    use crate::name::{Path, Target};

    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 4096,
        fields: 32,
    };

    /// Like [`request`], with a `:path` without `#`.
    fn read(
        parts: &Parts,
        ended: bool,
        limits: HeadLimits,
        sockets: bool,
    ) -> Result<RequestHead, HeadError> {
        request(parts, Fragment::Absent, ended, limits, sockets)
    }

    fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn a_connect_names_host_and_port_and_nothing_else() {
        let head = read(
            &parts("CONNECT", "a.example:443", &[]),
            false,
            LIMITS,
            false,
        )
        .expect("good");
        assert_eq!(head.target(), b"a.example:443");
        assert_eq!(
            (head.body, head.version),
            (BodyLength::None, Version::Http2)
        );
        let whole = parts("CONNECT", "https://a.example:443/", &[]);
        assert!(read(&whole, false, LIMITS, false).is_err());
    }

    fn extended(protocol: &'static str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut parts = parts("CONNECT", uri, fields);
        parts.extensions.insert(Protocol::from_static(protocol));
        parts
    }

    #[test]
    fn an_extended_connect_is_read_as_the_upgrade_that_it_stands_for() {
        let version = [("sec-websocket-version", "13")];
        let asked = extended("websocket", "https://a.example/ws?q", &version);
        let head = read(&asked, false, LIMITS, true).expect("good");
        assert_eq!(head.target(), b"https://a.example/ws?q");
        assert_eq!(
            (&head.method, head.upgrade(), head.extended, head.body),
            (&Method::Get, Some("websocket"), true, BodyLength::None)
        );
        let target = Target::from_connect(b"a.example:443").expect("a target");
        let path = Path::parse(b"/ws?q").expect("a path");
        let onward = Onward {
            target: &target,
            path: &path,
            via: "gate",
            upgrade: true,
            through: None,
            tls: true,
            plain: false,
        };
        let sent = onward_request(&head, onward).expect("a request");
        let (mut sent, ()) = sent.into_parts();
        assert_eq!(
            sent.headers.remove("via"),
            Some(HeaderValue::from_static("2.0 gate"))
        );
        assert_eq!((&sent.method, &sent.uri), (&asked.method, &asked.uri));
        assert_eq!(sent.headers, asked.headers);
        let protocol = sent.extensions.get::<Protocol>().expect("a protocol");
        assert_eq!(protocol.as_str(), "websocket");
    }

    #[test]
    fn an_extended_connect_is_for_a_websocket_over_tls_where_it_is_offered() {
        const URL: &str = "https://a.example/ws";
        let wrong = |protocol, uri: &str, fields: &[(&str, &str)], ended, offered| {
            let parts = extended(protocol, uri, fields);
            read(&parts, ended, LIMITS, offered).expect_err("wrong")
        };
        for (protocol, offered) in [
            ("websocket", false),
            ("connect-udp", true),
            ("connect-ip", true),
            ("webtransport", true),
            ("WebSocket", true),
            ("", true),
        ] {
            let error = wrong(protocol, URL, &[], false, offered);
            assert_eq!((error, error.status()), (HeadError::Protocol, 501));
        }
        for uri in ["http://a.example/ws", "wss://a.example/ws", "a.example:443"] {
            let error = wrong("websocket", uri, &[], false, true);
            assert_eq!((error, error.status()), (HeadError::Socket, 400), "{uri}");
        }
        assert_eq!(wrong("websocket", URL, &[], true, true), HeadError::Socket);
        for (fields, error) in [
            ([("content-length", "5")], HeadError::UnexpectedBody),
            ([("host", "b.example")], HeadError::Host),
            // Two upgrades count as none, and a request without an upgrade must not be passed on as
            // a GET.
            ([("upgrade", "websocket")], HeadError::Socket),
            ([("upgrade", "other")], HeadError::Socket),
        ] {
            assert_eq!(wrong("websocket", URL, &fields, false, true), error);
        }
        let mut get = parts("GET", URL, &[]);
        get.extensions.insert(Protocol::from_static("websocket"));
        let error = read(&get, false, LIMITS, true).expect_err("wrong");
        assert_eq!(error, HeadError::Socket);
    }

    #[test]
    fn a_request_is_read_as_one_of_http1() {
        let cookies = [("cookie", "a=1"), ("cookie", "b=2"), ("host", "A.example")];
        let asked = parts("GET", "http://a.example/p?q", &cookies);
        let head = read(&asked, true, LIMITS, false).expect("good");
        assert_eq!(head.target(), b"http://a.example/p?q");
        let fields: Vec<_> = head.fields.iter().map(|field| field.value).collect();
        assert_eq!(fields, [&b"a.example"[..], b"a=1; b=2"]);
    }

    #[test]
    fn what_two_readers_could_take_in_two_ways_is_refused() {
        let wrong = |method: &str, fields: &[(&str, &str)], ended| {
            let parts = parts(method, "http://a.example/", fields);
            read(&parts, ended, LIMITS, false).expect_err("wrong")
        };
        assert_eq!(
            wrong("GET", &[("host", "b.example")], true),
            HeadError::Host
        );
        assert_eq!(wrong("GET", &[], false), HeadError::UnexpectedBody);
        let chunked = [("transfer-encoding", "gzip")];
        assert_eq!(wrong("POST", &chunked, false), HeadError::TransferEncoding);
        let disguised = [("transfer_encoding", "chunked")];
        assert_eq!(wrong("POST", &disguised, false), HeadError::DisguisedField);
        let huge = "x".repeat(5000);
        assert_eq!(wrong("GET", &[("a", &huge)], true), HeadError::TooLarge);
        let crumbs = [("cookie", "a=1"); 33];
        assert_eq!(wrong("GET", &crumbs, true), HeadError::TooLarge);
    }

    #[test]
    fn a_body_without_a_length_lasts_until_its_stream_ends() {
        let asked = |fields: &[(&str, &str)], ended| {
            let parts = parts("POST", "http://a.example/", fields);
            read(&parts, ended, LIMITS, false).expect("good").body
        };
        assert_eq!(asked(&[], false), BodyLength::UntilClose);
        assert_eq!(asked(&[], true), BodyLength::None);
        assert_eq!(
            asked(&[("content-length", "5")], false),
            BodyLength::Length(5)
        );
    }

    /// Returns the head as HTTP/1 text, for the text reader.
    fn as_text(parts: &Parts) -> Vec<u8> {
        let uri = &parts.uri;
        let authority = uri.authority().expect("an authority").as_str();
        let mut text = format!("{} {uri} HTTP/1.1\r\nHost: {authority}\r\n", parts.method);
        let mut text = std::mem::take(&mut text).into_bytes();
        for (name, value) in &parts.headers {
            text.extend_from_slice(
                &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat(),
            );
        }
        text.extend_from_slice(b"\r\n");
        text
    }

    /// Names that the reader handles, and one that it does not.
    const NAMES: [&str; 16] = [
        "accept",
        "connection",
        "content-length",
        "content_length",
        "expect",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
        "x-http-method-override",
        "x-original-url",
        "x-tidegate-flow",
    ];

    proptest! {
        #[test]
        fn a_head_in_parts_is_read_as_its_text(
            method in "GET|POST|PUT|DELETE|OPTIONS|TRACE|MKCOL|get",
            path in "/[!-~]{0,12}",
            fields in proptest::collection::vec(
                (0..NAMES.len(), "[ \t]{0,2}(chunked|close|5|0|PUT|websocket|upgrade|100-continue|[ -~\u{80}-\u{ff}]{0,8})[ \t]{0,2}"),
                0..6,
            ),
            bytes in 40..400_usize,
            most in 0..8_usize,
        ) {
            let limits = HeadLimits { bytes, fields: most };
            let mut request = http::Request::builder()
                .method(&*method)
                .uri(format!("http://a.example{path}"));
            for (name, value) in &fields {
                request = request.header(NAMES[*name], value.as_bytes());
            }
            let Ok(request) = request.body(()) else {
                return Ok(());
            };
            let (parts, ()) = request.into_parts();
            prop_assume!(parts.uri.to_string().ends_with(&path));
            let ours = told_apart(&parts, Fragment::Absent, false);
            let ours = ours.and_then(|parts| parts.read(limits));
            let text = parse_request(&mut BytesMut::from(&as_text(&parts)[..]), limits);
            let text = text.map(|head| head.expect("whole"));
            let told = |head: &RequestHead| {
                let fields: Vec<_> = head.fields.iter().map(|it| it.value.to_vec()).collect();
                let upgrade = head.upgrade().map(str::to_owned);
                let target = head.target().to_vec();
                (head.method.clone(), target, fields, head.body, upgrade, head.expect_continue)
            };
            // The two readers may report different faults.
            prop_assert_eq!(ours.is_err(), text.is_err(), "{:?} {:?}", ours, text);
            if let (Ok(ours), Ok(text)) = (&ours, &text) {
                prop_assert_eq!(told(ours), told(text));
            }
        }
    }
}
