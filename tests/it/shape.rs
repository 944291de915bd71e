//! The shape of the source: layers, purity, sizes, words, and that what is promised is written down
//! and tested.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// From the bottom up; a module looks only down.
const LAYERS: &[&[&str]] = &[
    &["decimal"],
    &["name", "diag", "clock", "manual"],
    &["ledger"],
    &["policy"],
    &["config"],
    &[
        "content", "dial", "identity", "jail", "metrics", "record", "tls", "vcs",
    ],
    &["gate", "http", "postgres"],
    &["proxy", "admin"],
    &["app", "replay"],
    &["cli"],
    &["main", "lib"],
];

/// Edges inside a layer that are wanted.
const SIDEWAYS: &[(&str, &str)] = &[
    ("record", "metrics"),
    ("record", "identity"),
    ("dial", "metrics"),
    ("dial", "tls"),
    ("tls", "metrics"),
    ("identity", "dial"),
    ("identity", "tls"),
    ("identity", "metrics"),
    ("identity", "vcs"),
];

/// A file of the source.
struct File {
    /// Relative to the package.
    path: PathBuf,
    /// Its top module.
    module: String,
    /// Everything before its tests.
    code: String,
    /// Everything.
    text: String,
}

impl File {
    /// The code without comments.
    fn statements(&self) -> String {
        let lines = self
            .code
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default());
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(package().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, into);
        } else {
            into.push(path);
        }
    }
}

/// Every Rust file below a folder of the package, in order.
fn files(folder: &str) -> Vec<File> {
    let mut paths = Vec::new();
    walk(&package().join(folder), &mut paths);
    paths.retain(|path| path.extension().is_some_and(|end| end == "rs"));
    paths.sort();
    let file = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("text");
        let path = path
            .strip_prefix(package())
            .expect("a file of the package")
            .to_owned();
        let module = path.iter().nth(1).expect("a module").to_string_lossy();
        let module = module.trim_end_matches(".rs").to_owned();
        let code = text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap_or_default()
            .to_owned();
        File {
            path,
            module,
            code,
            text,
        }
    };
    paths.into_iter().map(file).collect()
}

fn level(module: &str) -> usize {
    let found = LAYERS.iter().position(|layer| layer.contains(&module));
    found.unwrap_or_else(|| panic!("`{module}` is in no layer: add it to LAYERS"))
}

/// The top modules that a text names as `crate::x`.
fn named(text: &str) -> BTreeSet<String> {
    let after = text.split("crate::").skip(1);
    let word = |rest: &str| {
        rest.split(|c: char| !c.is_ascii_lowercase() && c != '_')
            .next()
            .map(str::to_owned)
    };
    after
        .filter_map(word)
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn modules_only_look_down() {
    let mut wrong = BTreeSet::new();
    for file in files("src") {
        for used in named(&file.statements()) {
            let (from, to) = (level(&file.module), level(&used));
            let listed = SIDEWAYS.contains(&(file.module.as_str(), used.as_str()));
            if file.module != used && to >= from && !listed {
                wrong.insert(format!("{} uses {used}", file.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "against the layers: {wrong:#?}");
}

#[test]
fn the_decision_is_pure() {
    let banned = [
        "tokio",
        "std::fs",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "Timestamp::now",
        "SystemTime",
    ];
    let mut wrong = Vec::new();
    for file in files("src")
        .iter()
        .filter(|file| ["policy", "name", "content"].contains(&file.module.as_str()))
    {
        let statements = file.statements();
        for word in banned.iter().filter(|word| statements.contains(**word)) {
            wrong.push(format!("{} names {word}", file.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_is_left_to_do() {
    // Spelt in parts: this file is read as well.
    let banned = [
        ["to", "do!("],
        ["unimpl", "emented!("],
        ["FIX", "ME"],
        ["dbg", "!("],
    ]
    .map(|word| word.concat());
    let mut wrong = Vec::new();
    for file in files("src").into_iter().chain(files("tests")) {
        for word in banned
            .iter()
            .filter(|word| file.text.contains(word.as_str()))
        {
            wrong.push(format!("{} has {word}", file.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_test_waits_a_fixed_time() {
    let banned = [["thread::", "sleep"], ["time::", "sleep"]].map(|word| word.concat());
    for file in files("tests") {
        for word in &banned {
            assert!(
                !file.text.contains(word.as_str()),
                "{} has {word}",
                file.path.display()
            );
        }
    }
}

#[test]
fn no_module_is_a_drawer() {
    let banned = [
        "util", "utils", "common", "helpers", "helper", "misc", "manager", "handler", "types",
        "core",
    ];
    for file in files("src") {
        let name = file
            .path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        assert!(!banned.contains(&name.as_str()), "{}", file.path.display());
    }
}

#[test]
fn files_are_short() {
    let mut sizes: Vec<(usize, String)> = files("src")
        .iter()
        .map(|file| (file.code.lines().count(), file.path.display().to_string()))
        .collect();
    sizes.sort();
    let at = |share: usize| sizes[(sizes.len() - 1) * share / 100].0;
    let longest: Vec<_> = sizes.iter().rev().take(5).collect();
    eprintln!(
        "{} files, median {}, p90 {}, longest {longest:?}",
        sizes.len(),
        at(50),
        at(90)
    );
    assert!(at(50) <= 200, "the median file has {} lines", at(50));
    assert!(
        at(90) <= 450,
        "one file in ten has more than {} lines: {longest:?}",
        at(90)
    );
}

/// Files that one CONNECT goes through, from accept to its close line.
const MAX_CONNECT_FILES: usize = 13;

/// One line of the walk of a CONNECT in `src/lib.rs`.
struct Stage {
    function: String,
    file: String,
    called_in: String,
}

/// The walk of a CONNECT, as `src/lib.rs` has it.
fn stages() -> Vec<Stage> {
    let text = read("src/lib.rs");
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | "));
    let stage = |row: &str| {
        let mut words = row.split('`').skip(1).step_by(2).map(str::to_owned);
        Some(Stage {
            function: words.next()?,
            file: words.next()?,
            called_in: words.next()?,
        })
    };
    rows.filter_map(stage).collect()
}

#[test]
fn one_connect_goes_through_the_files_that_its_walk_names() {
    let stages = stages();
    let files = files("src");
    let code = |path: &str| {
        let of = |file: &&File| file.path == Path::new("src").join(path);
        let file = files.iter().find(of).unwrap_or_else(|| panic!("no {path}"));
        file.statements()
    };
    let (mut reached, mut places) = (BTreeSet::new(), std::collections::BTreeMap::new());
    let first = stages.first().expect("a walk");
    reached.insert(first.file.clone());
    for Stage {
        function,
        file,
        called_in,
    } in &stages
    {
        assert!(
            code(file).contains(&format!("fn {function}(")),
            "{file} has no {function}"
        );
        assert!(
            reached.contains(called_in),
            "{called_in} is not reached before {function}"
        );
        reached.insert(file.clone());
        // The stages before the 200 stand in the tunnel's code in their order.
        let caller = code(called_in);
        let call = format!("{function}(");
        let calls = caller.match_indices(&call);
        let calls = calls.filter(|(at, _)| {
            let before = &caller[..*at];
            before.ends_with(['.', ':', ' ', '(']) && !before.ends_with("fn ")
        });
        let after = places.get(called_in).copied().unwrap_or(0);
        let in_order =
            called_in == "proxy/tunnel/mod.rs" && !["read", "relay"].contains(&function.as_str());
        let mut calls = calls
            .map(|(at, _)| at)
            .filter(|at| !in_order || *at > after);
        let at = calls.next();
        let at = at.unwrap_or_else(|| panic!("{called_in} does not call {function} then"));
        places.insert(called_in.clone(), at);
    }
    assert!(stages.len() > 20, "the reader of the walk is broken");
    assert_eq!(
        stages.last().map(|stage| stage.function.as_str()),
        Some("closed")
    );
    assert!(
        reached.len() <= MAX_CONNECT_FILES,
        "a CONNECT goes through {} files: {reached:?}",
        reached.len()
    );
}

/// The codes of `src/proxy/refusal.rs`: the second word of each line of its list.
fn codes() -> Vec<String> {
    let text = read("src/proxy/refusal.rs");
    let list = text
        .split("\ncodes! {")
        .nth(1)
        .expect("the list")
        .split("\n}")
        .next()
        .expect("its end");
    let code = |line: &str| line.split('"').nth(1).map(str::to_owned);
    let heads = list.lines().filter(|line| {
        line.starts_with("    ")
            && line
                .trim_start()
                .starts_with(|c: char| c.is_ascii_uppercase())
    });
    let codes: Vec<String> = heads.filter_map(code).collect();
    assert!(codes.len() > 15, "{codes:?}");
    codes
}

/// Every test, as one text.
fn scenarios() -> String {
    let tests = files("tests")
        .into_iter()
        .filter(|file| !file.path.ends_with("shape.rs"));
    tests.map(|file| file.text).collect::<String>() + &read("tests/it/bypass.toml")
}

#[test]
fn every_refusal_is_documented_and_tested() {
    let (manual, tests) = (read("docs/refusals.md"), scenarios());
    let mut wrong = Vec::new();
    for code in codes() {
        if !manual.contains(&format!("`{code}`")) {
            wrong.push(format!("{code} is not in the manual"));
        }
        if !tests.contains(&format!("\"{code}\"")) {
            wrong.push(format!("{code} is in no scenario"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Every metric that is declared.
pub(crate) fn metrics() -> BTreeSet<String> {
    let texts = files("src")
        .into_iter()
        .filter(|file| file.module == "metrics")
        .map(|file| file.code);
    let text: String = texts.collect();
    let quoted = text.split('"').filter(|word| word.starts_with("tidegate_"));
    let plain = |word: &&str| {
        word.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    quoted.filter(plain).map(str::to_owned).collect()
}

/// Every chapter of the manual, as one text.
fn manual() -> String {
    let chapters = tidegate::manual::CHAPTERS;
    chapters.iter().map(|chapter| chapter.text).collect()
}

#[test]
fn every_metric_is_documented() {
    let names = metrics();
    assert!(names.len() > 10, "{names:?}");
    let manual = manual();
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !manual.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "not in the manual: {missing:#?}");
}

#[test]
fn only_the_metrics_name_prometheus() {
    for file in files("src").iter().filter(|file| file.module != "metrics") {
        let named = file.statements().contains("prometheus::");
        assert!(!named, "{} names prometheus", file.path.display());
    }
}

#[test]
fn every_file_of_a_service_is_built_in() {
    let services = tidegate::policy::Services::built_in();
    let mut paths = Vec::new();
    walk(&package().join("config/services"), &mut paths);
    assert!(paths.len() > 15, "{paths:?}");
    for path in paths {
        let name = path.file_stem().and_then(|stem| stem.to_str());
        assert!(name.is_some_and(|name| services.knows(name)), "{path:?}");
    }
}

/// The modules of the policy, and which of them use which.
#[derive(Default)]
struct Modules {
    /// The paths of the modules, e.g. `compile`, `compile::rules`; the policy itself is empty.
    paths: BTreeSet<Vec<String>>,
    /// What a module exports from another: its path and the name, then the path it stands for.
    exports: Vec<(Vec<String>, Vec<String>)>,
}

impl Modules {
    fn path_of(file: &File) -> Vec<String> {
        let path = file.path.with_extension("");
        let names = path.iter().skip(2).map(|name| name.to_string_lossy());
        names.filter(|name| name != "mod").map(Into::into).collect()
    }

    /// What a name below `super::` or `crate::policy::` stands for: a module of the policy.
    fn resolve(&self, name: &[String]) -> Option<Vec<String>> {
        for length in (0..=name.len()).rev() {
            let (module, rest) = name.split_at(length);
            if !self.paths.contains(module) {
                continue;
            }
            let item = name.get(..=length).filter(|_| !rest.is_empty());
            let mut exports = self.exports.iter();
            let exported = exports.find(|(from, _)| Some(from.as_slice()) == item);
            return exported.map_or(Some(module.to_vec()), |(_, to)| self.resolve(to));
        }
        None
    }

    /// The names that a text uses, each from the policy down.
    fn used(module: &[String], text: &str) -> Vec<Vec<String>> {
        let mut names = Vec::new();
        for (at, _) in text
            .match_indices("super::")
            .chain(text.match_indices("crate::"))
        {
            let before = text[..at].chars().next_back();
            if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':') {
                expand(&mut text[at..].chars().peekable(), &[], &mut names);
            }
        }
        names
            .iter()
            .filter_map(|name| from_policy(module, name))
            .collect()
    }
}

/// A name as it is written in a module, from the policy down; `None` outside of it.
fn from_policy(module: &[String], name: &[String]) -> Option<Vec<String>> {
    if let Some(rest) = name.strip_prefix(&["crate".to_owned()]) {
        return (rest.first()? == "policy").then(|| rest[1..].to_vec());
    }
    let up = name.iter().take_while(|part| *part == "super").count();
    let base = module.len().checked_sub(up)?;
    Some([&module[..base], &name[up..]].concat())
}

/// Reads `a::b::{c, d::e}` as `a::b::c` and `a::b::d::e`.
fn expand(
    text: &mut std::iter::Peekable<std::str::Chars<'_>>,
    front: &[String],
    names: &mut Vec<Vec<String>>,
) {
    let mut name = front.to_vec();
    loop {
        let mut word = String::new();
        while let Some(c) = text.next_if(|c| c.is_alphanumeric() || *c == '_') {
            word.push(c);
        }
        if !word.is_empty() {
            name.push(word);
        }
        if text.next_if_eq(&':').is_some() {
            text.next_if_eq(&':');
        } else if text.peek() != Some(&'{') {
            break;
        }
        if text.next_if_eq(&'{').is_some() {
            while text.peek().is_some_and(|c| *c != '}') {
                while text.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
                if text.peek() != Some(&'}') {
                    expand(text, &name, names);
                    // `as OTHER`
                    while text.next_if(|c| *c != ',' && *c != '}').is_some() {}
                }
            }
            text.next();
            return;
        }
    }
    names.push(name);
}

#[test]
fn no_modules_of_the_policy_use_each_other_in_a_circle() {
    let is_test = |file: &File| {
        file.path
            .iter()
            .any(|part| part == "tests" || part == "tests.rs")
    };
    let files: Vec<File> = files("src/policy")
        .into_iter()
        .filter(|it| !is_test(it))
        .collect();
    let mut modules = Modules {
        paths: files.iter().map(Modules::path_of).collect(),
        ..Modules::default()
    };
    for file in &files {
        let module = Modules::path_of(file);
        let text = file.statements();
        for export in text.split("pub").filter_map(|it| it.split_once("use ")) {
            let mut names = Vec::new();
            let is_export = export.0.trim().is_empty() || export.0.starts_with('(');
            if is_export && export.0.len() < 30 {
                expand(&mut export.1.chars().peekable(), &[], &mut names);
            }
            for name in names {
                let item = [module.as_slice(), &name[name.len() - 1..]].concat();
                let target = match name[0].as_str() {
                    "super" | "crate" => from_policy(&module, &name),
                    _ => Some([module.as_slice(), &name].concat()),
                };
                modules.exports.extend(target.map(|target| (item, target)));
            }
        }
    }
    // Between two modules, an edge joins the two folders or files in which their paths part.
    let mut edges: BTreeSet<(Vec<String>, Vec<String>)> = BTreeSet::new();
    for file in &files {
        let module = Modules::path_of(file);
        for used in Modules::used(&module, &file.statements()) {
            let Some(used) = modules.resolve(&used) else {
                continue;
            };
            let same = module.iter().zip(&used).take_while(|(a, b)| a == b).count();
            if module.len() > same && used.len() > same {
                edges.insert((module[..=same].to_vec(), used[..=same].to_vec()));
            }
        }
    }
    assert!(
        edges.len() > 100,
        "the reader of `use` is broken: {edges:?}"
    );
    // A module that uses none of the rest, or that none of the rest uses, is in no circle.
    loop {
        let users: BTreeSet<_> = edges.iter().map(|(from, _)| from.clone()).collect();
        let used: BTreeSet<_> = edges.iter().map(|(_, to)| to.clone()).collect();
        let count = edges.len();
        edges.retain(|(from, to)| users.contains(to) && used.contains(from));
        if edges.len() == count {
            break;
        }
    }
    let left: Vec<String> = edges
        .iter()
        .map(|(from, to)| format!("{} uses {}", from.join("::"), to.join("::")))
        .collect();
    assert!(left.is_empty(), "a circle: {left:#?}");
}
