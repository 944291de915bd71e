//! Tests each answer about patterns against brute force over all short texts.

use proptest::prelude::*;

use super::*;
use crate::name::Host;

fn pattern(text: &str, kind: Kind) -> Pattern {
    Pattern::parse(text, kind).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn path(text: &str) -> Pattern {
    pattern(text, Kind::Path)
}

/// A matcher that tries everything: slow, but short enough to be verified by reading.
fn naive(pieces: &[Piece], text: &[u8]) -> bool {
    let Some((piece, rest)) = pieces.split_first() else {
        return text.is_empty();
    };
    let one_more = || text.split_first();
    match piece {
        Piece::Byte(byte) => {
            one_more().is_some_and(|(first, after)| first == byte && naive(rest, after))
        }
        Piece::One => one_more().is_some_and(|(first, after)| *first != b'/' && naive(rest, after)),
        Piece::Within => {
            naive(rest, text)
                || one_more().is_some_and(|(first, after)| *first != b'/' && naive(pieces, after))
        }
        Piece::Across => {
            naive(rest, text) || one_more().is_some_and(|(_, after)| naive(pieces, after))
        }
        Piece::Below => {
            naive(&rest[1..], text)
                || one_more().is_some_and(|(first, after)| *first == b'/' && naive(rest, after))
        }
    }
}

/// Whether some machine of the pattern matches, by [`naive`].
fn naive_match(pattern: &Pattern, text: &str) -> bool {
    pattern
        .machines
        .iter()
        .any(|machine| match machine.reading {
            Reading::Exact => naive(&machine.pieces, text.as_bytes()),
            Reading::AnyCase => naive(&machine.pieces, text.to_ascii_lowercase().as_bytes()),
            Reading::Path(server) => naive(&machine.pieces, &fold::fold(text.as_bytes(), server)),
        })
}

/// Returns all texts over an alphabet, up to a length.
fn texts(alphabet: &[&str], length: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut last = all.clone();
    for _ in 0..length {
        let longer = |text: &String| {
            let text = text.clone();
            alphabet.iter().map(move |symbol| format!("{text}{symbol}"))
        };
        last = last.iter().flat_map(longer).collect();
        all.extend(last.iter().cloned());
    }
    all
}

/// Returns all short canonical paths.
fn paths() -> Vec<String> {
    let all = texts(&["a", "b", "A", ";", ".", "%2F", "/"], 5);
    let canonical =
        |text: &String| name::Path::parse(text.as_bytes()).is_ok_and(|path| path.path() == *text);
    all.into_iter()
        .map(|text| format!("/{text}"))
        .filter(canonical)
        .collect()
}

fn words() -> Vec<String> {
    let all = texts(&["a", "b", "A", "/"], 6);
    all.into_iter().filter(|text| !text.is_empty()).collect()
}

fn path_text() -> impl Strategy<Value = String> {
    let segment =
        prop::sample::select(vec!["a", "b", "*", "**", "a*", "*b", "a*b", "A", "a;b", ""]);
    let segments = prop::collection::vec(segment, 1..5);
    segments.prop_filter_map("no path", |segments| {
        let text = format!("/{}", segments.join("/"));
        Pattern::parse(&text, Kind::Path).is_ok().then_some(text)
    })
}

fn name_text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec!["a", "b", "A", "/", "*", "**"]);
    prop::collection::vec(piece, 1..7).prop_map(|pieces| pieces.concat())
}

fn any_pattern(kind: Kind) -> BoxedStrategy<Pattern> {
    let text = match kind {
        Kind::Path => path_text().boxed(),
        _ => name_text().boxed(),
    };
    let parsed = text.prop_filter_map("no pattern", move |text| Pattern::parse(&text, kind).ok());
    (parsed, any::<bool>())
        .prop_map(|(pattern, wide)| if wide { pattern.widened() } else { pattern })
        .boxed()
}

fn patterns(most: usize) -> impl Strategy<Value = Vec<Pattern>> {
    let kinds = vec![
        Kind::Path,
        Kind::Name,
        Kind::Repository,
        Kind::Word,
        Kind::Text,
    ];
    prop::sample::select(kinds)
        .prop_flat_map(move |kind| prop::collection::vec(any_pattern(kind), 1..=most))
}

fn domain(pattern: &Pattern) -> Vec<String> {
    match pattern.kind {
        Kind::Path => paths(),
        _ => words(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn matching_is_what_trying_everything_finds(patterns in patterns(1)) {
        for pattern in &patterns {
            for text in domain(pattern) {
                prop_assert_eq!(
                    pattern.matches(&text), naive_match(pattern, &text), "{} {}", pattern, text
                );
            }
        }
    }

    #[test]
    fn each_text_is_in_the_one_atom_that_says_what_matches_it(patterns in patterns(3)) {
        let all: Vec<&Pattern> = patterns.iter().collect();
        let atoms = atoms(&all).unwrap();
        let matched = |text: &str| -> Vec<bool> {
            all.iter().map(|pattern| pattern.matches(text)).collect()
        };
        for atom in &atoms {
            prop_assert_eq!(&*matched(&atom.witness), &*atom.matched, "{:?}", atom);
        }
        for text in domain(&patterns[0]) {
            let found = matched(&text);
            let of = atoms.iter().filter(|atom| *atom.matched == *found).count();
            prop_assert_eq!(of, 1, "{} {:?}", text, found);
        }
    }

    #[test]
    fn covering_and_meeting_hold_for_each_text(patterns in patterns(2)) {
        let (left, right) = (&patterns[0], &patterns[patterns.len() - 1]);
        let mut meets = false;
        let covers = left.covers(right);
        for text in domain(left) {
            let (in_left, in_right) = (left.matches(&text), right.matches(&text));
            if covers {
                prop_assert!(in_left || !in_right, "{} covers {}: {}", left, right, text);
            }
            meets |= in_left && in_right;
        }
        // If the common texts are longer than the tried ones, the search finds one.
        let common = witness(&[left, right], &[]).unwrap();
        prop_assert_eq!(left.intersects(right), common.is_some());
        prop_assert!(common.is_some() || !meets);
        if let Some(text) = common {
            prop_assert!(left.matches(&text) && right.matches(&text), "{}", text);
        }
        if let Some(text) = witness(&[right], &[left]).unwrap() {
            prop_assert!(!covers && right.matches(&text) && !left.matches(&text));
        } else {
            prop_assert!(covers);
        }
    }

    #[test]
    fn a_widened_pattern_matches_what_it_matched(patterns in patterns(1)) {
        for pattern in &patterns {
            let wide = pattern.widened();
            prop_assert!(wide.covers(pattern), "{}", pattern);
            for text in domain(pattern).iter().filter(|text| pattern.matches(text)) {
                prop_assert!(wide.matches(text), "{} {}", pattern, text);
            }
        }
    }

    #[test]
    fn port_sets_are_sets(left in ports(), right in ports()) {
        let (union, both) = (left.union(&right), left.intersection(&right));
        let only = left.difference(&right);
        for port in (0..40).chain(65_500..=u16::MAX) {
            let (in_left, in_right) = (left.contains(port), right.contains(port));
            prop_assert_eq!(union.contains(port), in_left || in_right);
            prop_assert_eq!(both.contains(port), in_left && in_right);
            prop_assert_eq!(only.contains(port), in_left && !in_right);
            prop_assert_eq!(left.complement().contains(port), !in_left);
        }
        prop_assert_eq!(left.covers(&right), right.difference(&left).is_empty());
        prop_assert_eq!(left.witness().is_none(), left.is_empty());
        prop_assert!(left.witness().is_none_or(|port| left.contains(port)));
        prop_assert_eq!(left.complement().complement(), left);
    }
}

fn ports() -> impl Strategy<Value = PortSet> {
    let port = prop_oneof![0u16..40, 65_500..=u16::MAX];
    (prop::collection::vec(port, 0..20), any::<bool>()).prop_map(|(ports, rest)| {
        let set = PortSet::of(ports);
        if rest { set.complement() } else { set }
    })
}

#[test]
fn paths_match_by_segments() {
    for (pattern, text, expected) in [
        ("/repos/x", "/repos/x", true),
        ("/repos/x", "/repos/x-evil", false),
        ("/repos/x", "/repos/x/", false),
        ("/repos/x", "/Repos/x", false),
        ("/crate/*/docs", "/crate/serde/docs", true),
        ("/crate/*/docs", "/crate/a/b/docs", false),
        ("/crate/*", "/crate/", false),
        ("/questions/*/answers*", "/questions/7/answers", true),
        ("/questions/*/answers*", "/questions/7/answers-2", true),
        ("/questions/*/answers*", "/questions/7/answers/2", false),
        ("/a/**", "/a", true),
        ("/a/**", "/a/", true),
        ("/a/**", "/a/b/c", true),
        ("/a/**", "/ab", false),
        ("/**", "/", true),
        ("/**", "/anything/at/all", true),
        ("/a/**/z", "/a/z", true),
        ("/a/**/z", "/a/b/c/z", true),
        ("/a/**/z", "/a/bz", false),
        ("/", "/", true),
        ("/a%2bb", "/a%2Bb", true),
    ] {
        assert_eq!(path(pattern).matches(text), expected, "{pattern} {text}");
    }
}

#[test]
fn names_match_as_their_kind_says() {
    for (kind, pattern_text, text, expected) in [
        (Kind::Name, "acme/*", "acme/app", true),
        (Kind::Name, "acme/*", "acme/app/x", false),
        (Kind::Name, "agent/**", "agent/a/b", true),
        (Kind::Name, "Acme/*", "acme/app", false),
        (
            Kind::Repository,
            "GitHub.com/Acme/*",
            "github.com/aCME/x",
            true,
        ),
        (
            Kind::Repository,
            "**/infra",
            "gitlab.com/group/sub/infra",
            true,
        ),
        (
            Kind::Repository,
            "github.com/*/a*c",
            "github.com/x/abcbc",
            true,
        ),
        (
            Kind::Repository,
            "github.com/*/a*c",
            "github.com/x/y/abc",
            false,
        ),
        (Kind::Repository, "*/acme/*", "github.com/acme/app", true),
        (Kind::Word, "search_*", "search_issues", true),
        (Kind::Word, "tools/*", "tools/call/x", true),
        (Kind::Word, "search_*", "Search_issues", false),
        (Kind::Text, "*@acme.example", "ana@acme.example", true),
        (Kind::Text, "ab*ba", "aba", false),
        (Kind::Text, "a*b*c", "a b b c", true),
    ] {
        let found = pattern(pattern_text, kind).matches(text);
        assert_eq!(found, expected, "{kind:?} {pattern_text} {text}");
    }
}

#[test]
fn a_widened_path_matches_every_spelling_of_what_it_names() {
    let admin = path("/admin/**").widened();
    for text in [
        "/admin",
        "/ADMIN/x",
        "/admin;/x",
        "/admin;a=b",
        "/admin%2Fx",
        "/%61dmin/x",
        "//admin/x",
        "/admin/",
    ] {
        assert!(admin.matches(text), "{text}");
    }
    for text in ["/administrator", "/x/admin", "/", "/x;/admin"] {
        assert!(!admin.matches(text), "{text}");
    }
    assert!(path("/admin").widened().matches("/admin/"));
    assert!(path("/@a/b").widened().matches("/%40A%2fb;x/"));
    assert!(
        path("/x/*").widened().matches("/X/;a"),
        "parameters may be the whole segment"
    );
    assert!(
        path("/x/*").widened().matches("/x/a%2Fb"),
        "an encoded slash may be no slash"
    );
}

#[test]
fn what_is_no_pattern_is_refused() {
    let error = |text: &str, kind| Pattern::parse(text, kind).unwrap_err().to_string();
    assert_eq!(error("a/b", Kind::Path), "a path begins with `/`");
    assert_eq!(error("/a?b=c", Kind::Path), "a query is never matched");
    assert_eq!(
        error("/a**", Kind::Path),
        "`**` stands alone, between slashes"
    );
    assert!(Pattern::parse("/a/../b", Kind::Path).is_err());
    assert_eq!(error("", Kind::Text), "an empty pattern");
    assert_eq!(error("a b", Kind::Word), "a blank or control character");
    assert_eq!(
        error(&"a*".repeat(11), Kind::Text),
        "more than 10 wildcards"
    );
    assert_eq!(
        error(&"a".repeat(2000), Kind::Text),
        "longer than 1024 bytes"
    );
    assert!(Pattern::parse(&"a*".repeat(10), Kind::Text).is_ok());
}

#[test]
fn hostile_patterns_and_texts_are_answered() {
    let hostile = pattern(&format!("{}b", "*a**".repeat(5)), Kind::Name);
    assert!(!hostile.matches(&"a/".repeat(20_000)));
    let counting = path("/**/a/*/*/*/*/*/*/*");
    assert!(!counting.matches(&"/a".repeat(5)));
    assert!(counting.covers(&path("/b/**/a/c/*/*/*/*/*/*")));
    assert!(!counting.covers(&path("/**/a/*/*/*/*/*/*")));
}

#[test]
fn a_witness_is_the_shortest_and_plain() {
    assert_eq!(path("/a/*").witness().as_deref(), Some("/a/x"));
    assert_eq!(path("/**").witness().as_deref(), Some("/"));
    assert_eq!(pattern("*x", Kind::Name).witness().as_deref(), Some("x"));
    let only = witness(&[&path("/a/**")], &[&path("/a/*"), &path("/a")]);
    assert_eq!(only, Ok(Some("/a/".into())));
    assert!(!path("/a").is_empty());
}

#[test]
fn too_many_independent_patterns_are_too_complex() {
    let many: Vec<Pattern> = (b'a'..=b'z')
        .map(|letter| pattern(&format!("*{}*", char::from(letter)), Kind::Word))
        .collect();
    let many: Vec<&Pattern> = many.iter().collect();
    assert_eq!(atoms(&many), Err(TooComplex));
}

#[test]
fn host_patterns_nest_or_are_apart() {
    let host = |text: &str| HostPattern::parse(text).unwrap();
    let texts = [
        "example.com",
        "*.example.com",
        "*.a.example.com",
        "x.example.com",
        "com",
        "10.0.0.0/8",
        "10.0.0.0/9",
        "10.128.0.0/9",
        "10.0.0.1",
        "2001:db8::/32",
    ];
    let hosts: Vec<Host> = [
        "example.com",
        "x.example.com",
        "a.example.com",
        "b.a.example.com",
        "com",
        "10.0.0.1",
        "10.200.0.1",
        "11.0.0.1",
        "[2001:db8::1]",
        "notexample.com",
    ]
    .map(|text| Host::parse(text.as_bytes()).unwrap())
    .into();
    for left in texts.map(host) {
        for right in texts.map(host) {
            let pairs = hosts
                .iter()
                .map(|host| (left.matches(host), right.matches(host)));
            for (in_left, in_right) in pairs {
                assert!(
                    !left.covers(&right) || in_left || !in_right,
                    "{left} covers {right}"
                );
                assert!(
                    left.intersects(&right) || !(in_left && in_right),
                    "{left} {right}"
                );
            }
            let outside = left.witness_outside(&[&right]);
            assert_eq!(
                outside.is_none(),
                right.covers(&left),
                "{left} outside {right}"
            );
            let fits = |host: &Host| left.matches(host) && !right.matches(host);
            assert!(outside.as_ref().is_none_or(fits), "{left} outside {right}");
        }
    }
    let halves = [&host("10.0.0.0/9"), &host("10.128.0.0/9")];
    assert_eq!(host("10.0.0.0/8").witness_outside(&halves), None);
    let wrapped = Host::parse(b"[::ffff:10.0.0.1]").unwrap();
    assert!(host("10.0.0.0/8").matches(&wrapped));
}

#[test]
fn a_path_is_folded_as_its_readings_are() {
    for text in [
        "/",
        "//",
        "/A//b%2Fc;v=1/",
        "/;x",
        "/a;b%2Fc/d",
        "/a%3Bb/c",
        "/100%25",
        "/%40Scope%2fname/-/x",
        "/%2F%2f;",
        "/[slug]|^",
    ] {
        let path = name::Path::parse(text.as_bytes()).unwrap();
        let folded: Vec<String> = Server::ALL
            .map(|server| fold::fold(path.path().as_bytes(), server))
            .map(|folded| String::from_utf8(folded).unwrap())
            .into();
        let readings: Vec<String> = path.readings().into_iter().map(Into::into).collect();
        assert!(
            readings.iter().all(|reading| folded.contains(reading)),
            "{text}: {folded:?}"
        );
        assert!(
            folded.iter().all(|folded| readings.contains(folded)),
            "{text}: {readings:?}"
        );
    }
}

#[test]
fn a_long_segment_is_searched_once() {
    // With a search for each byte of the segment, the test would not end.
    let length = 1 << 22;
    let text = "a".repeat(length);
    for (front, back) in [("", ""), ("/", ""), ("", "/b"), ("b/", "/c")] {
        let text = format!("{front}{text}{back}");
        for kind in [Kind::Name, Kind::Repository] {
            let pattern = pattern("**a*ab", kind);
            assert!(!pattern.matches(&text));
            assert!(pattern.matches(&format!("{text}/xaxab")));
        }
    }
}
