mod commands;
mod forges;
mod models;
mod registries;
mod spelling;
mod stores;

use super::pattern::Pattern;
use super::*;

/// Returns the facts of a request line: `operation action [body] [repository=… package=…
/// version=…]`.
fn told(service: Option<&str>, category: Category, line: &str) -> String {
    tell(&Services::built_in(), service, category, line)
}

fn tell(services: &Services, service: Option<&str>, category: Category, line: &str) -> String {
    let (method, target) = line.split_once(' ').unwrap();
    let path = Path::parse(target.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
    let request_facts = services.read(service, category, method, &path);
    assert_eq!(
        request_facts.seen == Seen::Head,
        request_facts.body.is_some(),
        "{line}"
    );
    let mut said = vec![
        request_facts.operation.as_deref().unwrap_or("-").to_owned(),
        request_facts.action.map_or("?", Action::as_str).to_owned(),
    ];
    said.extend(request_facts.body.map(|body| format!("{body:?}")));
    let named = [
        ("repository", &request_facts.repository),
        ("package", &request_facts.package),
        ("version", &request_facts.version),
    ];
    let named = named
        .into_iter()
        .filter_map(|(word, value)| Some(format!("{word}={}", value.as_deref()?)));
    said.extend(named);
    said.join(" ")
}

/// Checks a table: a request line, `->`, its facts. Then respells each listed write with a writing
/// method; no spelling may be a read or a call.
fn check(service: &str, table: &str) {
    let services = Services::built_in();
    assert!(services.knows(service), "{service}");
    let lines = table.lines().map(str::trim);
    let mut wrong = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (request, expected) = line.split_once(" -> ").unwrap();
        let found = tell(&services, Some(service), Category::Unknown, request.trim());
        if found != expected.trim() {
            wrong.push(format!("{request}: expected {expected}, found {found}"));
        }
        if expected.split(' ').nth(1) == Some("write") && !expected.trim().starts_with("other") {
            wrong.extend(respelled_as_harmless(&services, service, request.trim()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn respelled_as_harmless(services: &Services, service: &str, line: &str) -> Vec<String> {
    let (method, target) = line.split_once(' ').unwrap();
    if method == "GET" {
        return Vec::new();
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let spellings = [
        format!("{path}/?{query}"),
        format!("{path};v=1?{query}"),
        format!("{path}%20?{query}"),
        format!("{}?{query}", path.to_ascii_uppercase()),
        format!("{}?{query}", path.to_ascii_lowercase()),
        format!("{path}?{query}&{query}"),
        format!("{path}?x=%26&{query}"),
        format!("{path}.json?{query}"),
    ];
    let sound = |spelling: &String| Path::parse(spelling.as_bytes()).is_ok();
    let spellings = spellings.into_iter().filter(sound);
    let lines = spellings.map(|spelling| format!("{method} {spelling}"));
    let found = lines.filter_map(|line| {
        let found = tell(services, Some(service), Category::Unknown, &line);
        let harmless = found.contains(" read") || found.contains(" call");
        harmless.then(|| format!("{line}: {found}"))
    });
    found.collect()
}

#[test]
fn every_file_is_sound() {
    let (services, findings) = Services::parse(FILES);
    let said: Vec<String> = findings
        .iter()
        .map(|found| format!("{:?}: {}", found.place, found.message))
        .collect();
    assert!(said.is_empty(), "{said:#?}");
    assert_eq!(services.services.len(), FILES.len());
    assert!(FILES.is_sorted(), "in the order of the folder");
    for service in services.services.iter() {
        for included in &service.includes {
            assert!(services.knows(included), "{included}");
        }
    }
}

/// Two operations for one method, path and query would hide one of them.
#[test]
fn no_operation_stands_twice() {
    for service in Services::built_in().services.iter() {
        let mut seen = std::collections::BTreeSet::new();
        for operation in &service.operations {
            for method in &operation.methods {
                for pattern in &operation.paths {
                    let key = format!("{method} {pattern:?} {:?}", operation.query);
                    assert!(seen.insert(key), "{}: {operation:?}", service.name);
                }
            }
        }
    }
}

/// A request with a writing method is harmless at exact paths only: a longer path could be
/// anything.
#[test]
fn no_harmless_operation_of_a_writing_method_has_an_open_end() {
    for service in Services::built_in().services.iter() {
        let harmless = service.operations.iter().filter(|operation| {
            operation.action == Some(Action::Read)
                && operation.methods.iter().any(|m| **m != *"GET")
        });
        for operation in harmless {
            let open = operation.paths.iter().any(Pattern::is_open);
            assert!(!open, "{}: {operation:?}", service.name);
        }
    }
}

#[test]
fn the_words_of_a_service_are_listed_once_each() {
    let services = Services::built_in();
    let words: Vec<_> = services.operations("npm").collect();
    assert!(words.contains(&"publish") && words.contains(&"other"));
    let mut once = words.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), words.len());
    assert_eq!(services.operations("no-such").count(), 0);
}

#[test]
fn a_file_that_is_wrong_says_where_and_decides_nothing() {
    let text = r#"
        dated = "2026-11-26"
        name  = "demo"
        about = "a demonstration"
        [[operation]]
        name    = "publish"
        action  = "wirte"
        methods = ["PUT"]
        paths   = ["/{package}"]
        [[operation]]
        name    = "view"
        methods = ["get"]
        paths   = ["/{thing}"]
    "#;
    let (services, findings) = Services::parse(&[("demo", text)]);
    let said: Vec<_> = findings
        .iter()
        .map(|found| found.message.as_str())
        .collect();
    assert_eq!(
        said,
        [
            "no such word; did you mean `write`?",
            "a method in capitals; `GET` stands for `HEAD`",
            "`thing` is nothing to capture",
            "neither an action nor a body that tells it",
        ]
    );
    assert_eq!(services.operations("demo").count(), 0);
}

#[test]
fn the_manual_lists_every_word() {
    let manual = include_str!("../../../../docs/actions.md");
    let services = Services::built_in();
    let mut missing = String::new();
    for service in services.services.iter() {
        let of_heads = service.operations.iter().map(|operation| &*operation.name);
        let own = source_words(service);
        let of_bodies = own.listed().filter(|word| !word.starts_with("mutation:"));
        let row = format!(
            "| `{}` | {} | {} |\n",
            service.name,
            service.about,
            quoted(of_heads.chain(of_bodies))
        );
        let above = own.listed().collect::<std::collections::BTreeSet<_>>();
        let includes = above.into_iter().filter_map(|word| {
            let below = quoted(own.below(word));
            let row = format!("| `{}` | `{word}` | {below} |\n", service.name);
            (!below.is_empty()).then_some(row)
        });
        let rows = std::iter::once(row).chain(includes);
        rows.filter(|row| !manual.contains(row))
            .for_each(|row| missing.push_str(&row));
    }
    assert!(missing.is_empty(), "write in docs/actions.md:\n{missing}");
}

/// Returns the pairs of a service without those of the services that it includes.
fn source_words(service: &Service) -> Words {
    let text = FILES.iter().find(|(name, _)| *name == &*service.name);
    let mut findings = Vec::new();
    let parsed = source::parse(&service.name, text.unwrap().1, &mut findings);
    Words::clone(&parsed.unwrap().words)
}

fn quoted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut once: Vec<String> = Vec::new();
    for word in words.map(|word| format!("`{word}`")) {
        if !once.contains(&word) {
            once.push(word);
        }
    }
    once.join(", ")
}

/// A rule with a word that no request has would never match.
#[test]
fn every_word_is_one_that_a_head_or_a_body_tells() {
    let of_bodies = [
        "create",
        "delete",
        "push-probe",
        "lfs-upload",
        "lfs-download",
        "graphql-query",
        "graphql-subscription",
        "graphql-mutation",
        "graphql-unreadable",
        "pull-token",
        "push-token",
    ];
    let services = Services::built_in();
    for service in services.services.iter() {
        let of_heads: Vec<&str> = services
            .with_included(&service.name)
            .flat_map(|it| it.operations.iter().map(|operation| &*operation.name))
            .collect();
        for word in service.words.listed() {
            let told = of_heads.contains(&word) || of_bodies.contains(&word);
            assert!(
                told || word.starts_with("mutation:"),
                "{}: {word}",
                service.name
            );
        }
    }
}

#[test]
fn words_of_bodies_are_words_of_rules() {
    let services = Services::built_in();
    for word in [
        "push",
        "create",
        "graphql-query",
        "mutation:anyField",
        "push-token",
    ] {
        assert!(services.has_operation(word), "{word}");
    }
    assert!(!services.has_operation("force"), "which is not on the wire");
}

#[test]
fn a_word_holds_before_and_after_the_body() {
    let services = Services::built_in();
    for (service, before, after) in [
        ("git", "push", "create"),
        ("git", "push", "delete"),
        ("git", "push", "push-probe"),
        ("git", "lfs-batch", "lfs-upload"),
        ("git", "lfs-batch", "lfs-download"),
        ("github", "graphql", "graphql-query"),
        ("github", "graphql", "graphql-unreadable"),
        ("github", "graphql", "mutation:anything"),
        ("github", "comment", "mutation:addComment"),
        ("github", "push", "mutation:createCommitOnBranch"),
        ("gitlab", "comment", "mutation:createNote"),
        ("huggingface", "push", "create"),
        ("oci", "token", "push-token"),
        ("oci", "push", "push-token"),
    ] {
        let words = services.words(service).unwrap();
        assert!(words.includes(before, after), "{service}: {before} {after}");
        assert!(
            !words.includes(after, before),
            "{service}: {after} {before}"
        );
    }
}
