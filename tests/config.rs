//! Configuration files: those that load, those that do not and what is said about them, the
//! examples, the reference.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "that is how a test fails"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tidegate::config::{
    self, AdminAddress, Config, IdentityDemand, NameKind, OnFailure, SecretHash, TlsVersion,
};
use tidegate::diag::{self, Diagnostic, Severity};
use tidegate::identity;
use tidegate::policy;
use toml::Spanned;

/// Loads a file that has to be right in every respect.
fn good(path: &str) -> Config {
    let (config, findings) = config::load(Path::new(path));
    assert!(
        findings.is_empty(),
        "{path}:\n{}",
        diag::render(&findings, false)
    );
    config.expect("no finding, so there is a configuration")
}

/// The policy holds what its examples and trials say.
fn compiles(config: &Config) {
    let (policy, findings) = policy::compile(&config.policy, &policy::built_in());
    assert!(findings.is_empty(), "{}", diag::render(&findings, false));
    assert!(policy.is_some());
}

fn toml_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} has files");
    files
}

#[test]
fn an_empty_file_has_all_defaults() {
    let config = good("tests/config/good/empty.toml");
    let embedded = config::embedded_with(PathBuf::from("/var/state"));
    assert_eq!(config.listen.proxy, embedded.listen.proxy);
    assert_eq!(config.listen.admin, embedded.listen.admin);
    let control = |config: &Config| config.listen.control.clone().expect("a socket").path;
    assert_eq!(
        control(&config),
        Path::new("tests/config/good/control.sock")
    );
    assert_eq!(
        control(&embedded),
        Path::new("/var/state/tidegate/control.sock")
    );
    assert_eq!(config.listen.proxy[0].address.to_string(), "127.0.0.1:3128");
    let admin = AdminAddress::Tcp("127.0.0.1:3130".parse().unwrap());
    assert_eq!(config.listen.admin, Some(admin));
    let beside = Path::new("tests/config/good/decisions.jsonl");
    assert_eq!(config.record.file.as_deref(), Some(beside));
    let state = Path::new("/var/state/tidegate/decisions.jsonl");
    assert_eq!(embedded.record.file.as_deref(), Some(state));
    assert_eq!(config.limits, embedded.limits);
    assert!(config.policy.rules.is_empty() && config.policy.tiers.is_none());
}

#[test]
fn every_key_arrives_where_it_belongs() {
    let config = good("tests/config/good/everything.toml");
    let listen = &config.listen;
    let addresses: Vec<_> = listen
        .proxy
        .iter()
        .map(|it| it.address.to_string())
        .collect();
    assert_eq!(
        addresses,
        ["127.0.0.1:3128", "[::1]:3128", "127.0.0.1:3141"]
    );
    assert_eq!(listen.proxy[2].tier.as_deref(), Some("restricted"));
    assert_eq!(listen.proxy[2].user.as_deref(), Some("ci"));
    assert_eq!(*listen.proxy[2].groups, ["jobs".into()]);
    assert_eq!(
        listen.proxy[2].repository.as_deref(),
        Some("github.com/acme/web")
    );
    assert_eq!(listen.proxy[2].identity, IdentityDemand::Required);
    let socket = PathBuf::from("/run/tidegate/admin.sock");
    assert_eq!(listen.admin, Some(AdminAddress::Unix(socket)));

    let mapped = |folder: &str| {
        let found = config.workspaces.repository_of(Path::new(folder));
        found.map(ToString::to_string)
    };
    assert_eq!(
        mapped("/srv/src/web/below").as_deref(),
        Some("github.com/acme/web")
    );
    assert_eq!(
        mapped("/srv/people/ana/payments").as_deref(),
        Some("github.com/acme/payments")
    );
    assert_eq!(mapped("/srv/people/ana/payments-2"), None);

    assert_eq!(config.record.file, None);
    assert_eq!(config.record.on_failure, OnFailure::Continue);
    assert_eq!(
        (config.record.rotate_size, config.record.rotate_keep),
        (0, 3)
    );

    let inspect = &config.inspect;
    assert_eq!(inspect.leaf_lifetime.as_secs(), 7 * 24 * 3600);
    let authority = inspect.authority.as_ref().expect("an authority");
    assert!(authority.cert.ends_with("good/inspect/ca.pem"));
    assert!(authority.key.ends_with("good/inspect/ca.key"));
    assert!(authority.previous[0].ends_with("good/inspect/previous.pem"));
    let inspected = &config.policy.inspect.as_ref().expect("[inspect]").value;
    assert_eq!(inspected.hosts[0].get_ref(), "*.docs.example");
    assert_eq!(inspected.categories[0].get_ref(), "source-control");

    let limits = &config.limits;
    assert_eq!((limits.flows, limits.flows_per_caller), (1_000, 10));
    assert_eq!((limits.header_size, limits.header_count), (16 << 10, 64));
    let millis = [
        limits.header_timeout,
        limits.keep_alive,
        limits.hello_timeout,
        limits.dns_timeout,
        limits.connect_timeout,
        limits.idle,
        limits.drain,
    ]
    .map(|time: Duration| time.as_millis());
    assert_eq!(millis, [2_000, 90_000, 3_000, 250, 4_000, 7_200_000, 1]);

    let hosts = &config.dial.hosts;
    let addresses = |name: &str| {
        let (_, addresses) = hosts
            .iter()
            .find(|(host, _)| host.as_str() == name)
            .expect(name);
        addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(addresses("registry.acme.example"), ["10.2.0.7", "fd00::7"]);
    assert_eq!(addresses("xn--bcher-kva.example"), ["10.2.0.8"]);
    let resolvers: Vec<_> = config
        .dial
        .resolvers
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(resolvers, ["10.0.0.53:53", "[fd00::53]:5353"]);
}

#[test]
fn included_files_add_to_the_first_one_and_keep_their_places() {
    let config = good("tests/config/good/everything.toml");
    let users = &config.identity.users;
    assert_eq!(
        users.iter().map(|user| &*user.name).collect::<Vec<_>>(),
        ["ana", "lee"]
    );
    let counted = std::array::from_fn(|byte| u8::try_from(byte).unwrap());
    assert_eq!(users[0].secret, SecretHash::Sha256(counted));
    assert!(matches!(&users[1].secret, SecretHash::Argon2(hash) if hash.starts_with("$argon2id$")));

    let policy = &config.policy;
    let ids: Vec<_> = policy
        .rules
        .iter()
        .map(|rule| rule.value.id.get_ref().as_str())
        .collect();
    assert_eq!(ids, ["one", "two"]);
    let tiers: Vec<_> = policy
        .tier
        .iter()
        .map(|(name, _)| name.get_ref().as_str())
        .collect();
    assert_eq!(tiers, ["restricted", "standard"]);
    assert_eq!(
        (
            policy.groups.len(),
            policy.repositories.len(),
            policy.trials.len()
        ),
        (1, 1, 1)
    );
    let place = policy.rules[1]
        .at(&policy.rules[1].value.verdict)
        .to_string();
    assert_eq!(place, "tests/config/good/everything.d/20-policy.toml:21");
    let names = config
        .sources
        .iter()
        .map(|source| source.path.file_name().unwrap());
    let expected = ["everything.toml", "10-people.toml", "20-policy.toml"];
    assert!(names.eq(expected), "{:?}", config.sources);
}

/// `TIDEGATE_BLESS=1` writes what is said now: read the difference before it is committed.
#[test]
fn every_bad_file_is_explained_as_expected() {
    let bless = std::env::var_os("TIDEGATE_BLESS").is_some();
    let mut wrong = Vec::new();
    for path in toml_files("tests/config/bad") {
        let (config, findings) = config::load(&path);
        let said = diag::render(&findings, false);
        assert!(
            !findings.is_empty(),
            "{}: nothing was found",
            path.display()
        );
        let errors = findings
            .iter()
            .any(|finding| finding.severity == Severity::Error);
        assert_eq!(config.is_none(), errors, "{}", path.display());
        let expected = path.with_extension("stderr");
        if bless {
            fs::write(&expected, &said).unwrap();
        } else if config::read(&expected).unwrap_or_default() != said {
            wrong.push(format!("{}:\n{said}", path.display()));
        }
        for line in said.lines() {
            assert!(line.chars().count() <= 100, "{}: {line}", path.display());
        }
        assert!(
            !said.contains("hunter2") && !said.contains("nter2"),
            "a secret: {said}"
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What `check` says of policies that a reviewer could write in a first hour. `TIDEGATE_BLESS=1`
/// writes what is said now: read the difference before it is committed.
#[test]
fn every_wrong_policy_is_explained_as_expected() {
    let bless = std::env::var_os("TIDEGATE_BLESS").is_some();
    let mut wrong = Vec::new();
    for path in toml_files("tests/config/policy") {
        let (config, mut findings) = config::load(&path);
        if let Some(config) = &config {
            let (policy, more) = policy::compile(&config.policy, &policy::built_in());
            findings.extend(more);
            let policy = policy.as_ref();
            findings.extend(
                policy
                    .iter()
                    .flat_map(|policy| policy::reach_findings(&config.policy, policy).0),
            );
            let broken = policy.map(|it| policy::invariant_findings(&config.policy, it));
            findings.extend(broken.unwrap_or_default());
        }
        let said = diag::render(&findings, false);
        let expected = path.with_extension("stderr");
        if bless {
            fs::write(&expected, &said).unwrap();
        } else if config::read(&expected).unwrap_or_default() != said {
            wrong.push(format!("{}:\n{said}", path.display()));
        }
        assert!(
            !findings.is_empty(),
            "{}: nothing was found",
            path.display()
        );
        // A trial that fails says what decides: only its author can say what is wrong.
        for finding in findings.iter().filter(|it| it.code != "trial-failed") {
            assert!(finding.help.is_some(), "{}: {finding:?}", path.display());
        }
        for line in said.lines() {
            assert!(line.chars().count() <= 100, "{}: {line}", path.display());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_example_loads_without_findings() {
    for path in toml_files("config") {
        // The tiers that the policy brings are no beginning; the example of inspection
        // needs an authority first, and is tried with one in `tests/it/deploy.rs`.
        let apart = ["default.toml", "inspect.toml"];
        if path
            .file_name()
            .is_some_and(|name| !apart.iter().any(|it| name == *it))
        {
            compiles(&good(path.to_str().unwrap()));
        }
    }
}

/// The policies to start from.
const BEGINNINGS: [&str; 4] = ["solo", "team", "ci", "inspect"];

/// The policy of a beginning; the files that it names need not be there.
fn beginning(name: &str) -> policy::source::Policy {
    let path = format!("config/{name}.toml");
    let (loaded, findings) = config::load_policy(Path::new(&path));
    assert!(findings.is_empty(), "{}", diag::render(&findings, false));
    loaded.unwrap().policy
}

#[test]
fn each_rule_of_a_beginning_has_an_example_of_what_it_lets_pass_and_of_what_it_does_not() {
    for name in BEGINNINGS {
        let policy = beginning(name);
        assert!(!policy.rules.is_empty(), "{name} has no rule");
        for rule in policy.rules.iter().map(|rule| &rule.value) {
            let id = rule.id.get_ref();
            let is_allow = rule.verdict.get_ref() == "allow";
            assert!(!rule.denies.is_empty(), "{name}: {id} has no `denies`");
            assert!(
                !is_allow || !rule.allows.is_empty(),
                "{name}: {id} has no `allows`"
            );
            assert!(rule.reason.is_some(), "{name}: {id} has no `reason`");
        }
        // They are run where a policy is compiled: one that fails is a finding.
        let findings = policy::compile(&policy, &policy::built_in()).1;
        assert!(findings.is_empty(), "{}", diag::render(&findings, false));
    }
}

#[test]
fn the_invariants_of_each_beginning_are_proved_and_each_never_can_fail() {
    for name in BEGINNINGS {
        let written = beginning(name);
        assert!(!written.never.is_empty() && !written.always.is_empty());
        assert_eq!(broken_invariants(&written), [""; 0], "{name}");
        for never in &written.never {
            let never = &never.value;
            let mut wider = written.clone();
            for rule in &mut wider.rules {
                rule.value.allows.clear();
                rule.value.denies.clear();
            }
            wider.trials.clear();
            wider
                .rules
                .retain(|rule| rule.value.verdict.get_ref() != "deny");
            let mut added = written.rules[0].clone();
            added.value = policy::source::Rule {
                id: Spanned::new(0..0, "wider".to_owned()),
                verdict: Spanned::new(0..0, "allow".to_owned()),
                from: never.from.clone(),
                to: never.to.clone(),
                does: never.does.clone(),
                unless: policy::source::Unless::default(),
                grant: policy::source::Grant::default(),
                reason: None,
                allows: Vec::new(),
                denies: Vec::new(),
            };
            wider.rules.push(added);
            let found = broken_invariants(&wider);
            let said = never.name.as_ref().unwrap().get_ref();
            assert!(
                found.iter().any(|it| it.contains(said)),
                "{name}: \"{said}\" holds beside an allow in its words: {found:?}"
            );
        }
    }
}

fn broken_invariants(written: &policy::source::Policy) -> Vec<String> {
    let (policy, findings) = policy::compile(written, &policy::built_in());
    assert!(policy.is_some(), "{}", diag::render(&findings, false));
    let policy = policy.unwrap();
    let found = policy::invariant_findings(written, &policy);
    found.into_iter().map(|finding| finding.message).collect()
}

#[test]
fn a_bank_with_two_hundred_repositories_loads_and_its_trials_hold() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("bank.d")).unwrap();
    write_certs(folder.path());
    let mut copied = toml_files("tests/config/good/bank.d");
    copied.push("tests/config/good/bank.toml".into());
    for path in &copied {
        let below = path.strip_prefix("tests/config/good").unwrap();
        fs::copy(path, folder.path().join(below)).unwrap();
    }
    let config = good(folder.path().join("bank.toml").to_str().unwrap());
    let repositories = config.policy.repositories.iter();
    let count: usize = repositories.map(|it| it.value.r#match.0.len()).sum();
    assert_eq!(count, 200);
    compiles(&config);
}

fn schema_validator() -> jsonschema::Validator {
    let text = config::read(Path::new("config/schema.json")).unwrap();
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}

/// A file as an editor sees it; dates are texts there. `None` where its syntax is wrong.
fn as_json(text: &str) -> Option<serde_json::Value> {
    fn json(value: toml::Value) -> serde_json::Value {
        match value {
            toml::Value::Datetime(date) => date.to_string().into(),
            toml::Value::Array(list) => list.into_iter().map(json).collect(),
            toml::Value::Table(table) => {
                let each = table.into_iter().map(|(key, inner)| (key, json(inner)));
                serde_json::Value::Object(each.collect())
            }
            other => serde_json::to_value(other).unwrap(),
        }
    }
    Some(json(toml::Value::Table(text.parse().ok()?)))
}

/// `TIDEGATE_BLESS=1` writes the schema as it is now: read the difference before it is committed.
#[test]
fn the_schema_has_the_keys_types_and_words_of_the_loader() {
    let path = Path::new("config/schema.json");
    let now = serde_json::to_string_pretty(&config::schema().unwrap()).unwrap() + "\n";
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        fs::write(path, now).unwrap();
        return;
    }
    let was = config::read(path).unwrap();
    assert!(now == was, "config/schema.json is another one: {now}");
}

#[test]
fn the_schema_takes_each_file_that_loads() {
    let validator = schema_validator();
    let mut files = toml_files("config");
    files.extend(toml_files("tests/config/good"));
    files.extend(toml_files("tests/config/good/bank.d"));
    files.extend(toml_files("tests/config/good/everything.d"));
    files.push("deploy/compose/tidegate.toml".into());
    let mut texts: Vec<(String, String)> = { files.iter() }
        .map(|path| (path.display().to_string(), config::read(path).unwrap()))
        .collect();
    texts.push(("the reference".to_owned(), uncommented_reference()));
    for (name, text) in texts {
        let file = as_json(&text).unwrap();
        let errors = validator.iter_errors(&file);
        let errors = errors.map(|error| format!("{}: {error}", error.instance_path()));
        let errors: Vec<String> = errors.collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}");
    }
}

/// Whether a finding is about a key, a type, or a word of a few.
fn is_seen_by_schema(finding: &Diagnostic) -> bool {
    let says = |word: &str| finding.message.contains(word);
    match finding.code {
        "unknown-key" | "unknown-section" | "unknown-word" | "wrong-type" => true,
        "missing-key" => says("lacks its"),
        "unknown-name" => ["verdict", "category", "action"].into_iter().any(says),
        _ => false,
    }
}

#[test]
fn the_schema_refuses_each_file_with_a_wrong_key_type_or_word() {
    let validator = schema_validator();
    let mut refused = BTreeSet::new();
    let mut files = toml_files("tests/config/bad");
    files.extend(toml_files("tests/config/policy"));
    for path in files {
        let (config, mut findings) = config::load(&path);
        if let Some(config) = &config {
            findings.extend(policy::compile(&config.policy, &policy::built_in()).1);
        }
        let Some(file) = config::read(&path).ok().and_then(|text| as_json(&text)) else {
            continue;
        };
        let here = |it: &&Diagnostic| {
            let place = it.place.as_ref();
            place.is_some_and(|place| place.source.path == path) && is_seen_by_schema(it)
        };
        let Some(finding) = findings.iter().find(here) else {
            continue;
        };
        assert!(
            !validator.is_valid(&file),
            "{}: {finding:?}",
            path.display()
        );
        refused.insert(finding.code);
    }
    assert!(refused.len() >= 4, "{refused:?}");
}

#[test]
fn the_shipped_files_name_their_schema() {
    // The built-in tiers are no file that anybody edits.
    let edited = toml_files("config")
        .into_iter()
        .filter(|it| !it.ends_with("default.toml"));
    for path in edited {
        let text = config::read(&path).unwrap();
        assert!(
            text.starts_with("#:schema ./schema.json\n"),
            "{}",
            path.display()
        );
    }
}

#[test]
fn the_reference_shows_every_key_of_every_section() {
    let text = config::read(Path::new("config/tidegate.toml")).unwrap();
    let mut shown: BTreeSet<(String, String)> = BTreeSet::new();
    let mut section = String::new();
    for line in text.lines() {
        let line = line.strip_prefix('#').unwrap_or(line);
        if line.starts_with('[') {
            // A table of its own is a key of the one around it.
            if let Some((around, key)) = line.trim_matches(['[', ']']).split_once('.') {
                shown.insert((format!("[{around}]"), key.to_owned()));
            }
            section = match line.trim_matches(['[', ']']) {
                name if name.starts_with("tier.") => "[tier.NAME]".to_owned(),
                name if name.starts_with("group.") => "[group.NAME]".to_owned(),
                name if name.starts_with("upstream.") => "[upstream.NAME]".to_owned(),
                name if name.starts_with("mcp.") => "[mcp.NAME]".to_owned(),
                name if name.starts_with("notify.") => "[notify.NAME]".to_owned(),
                name if name.starts_with("collector.") => "[collector.NAME]".to_owned(),
                _ => line.to_owned(),
            };
        } else if let Some((key, _)) = line.split_once(" = ")
            && !line.starts_with(' ')
        {
            // `from.tiers` is the key `tiers` of `from`.
            let (around, key) = match key.split_once('.') {
                Some((prefix, key)) => {
                    shown.insert((section.clone(), prefix.to_owned()));
                    (prefix.to_owned(), key)
                }
                None => (section.clone(), key),
            };
            shown.insert((around, key.to_owned()));
        }
    }
    for (section, keys) in config::keys() {
        for key in keys {
            let key = (section.to_owned(), (*key).to_owned());
            assert!(
                shown.contains(&key),
                "config/tidegate.toml does not show {key:?}"
            );
        }
    }
}

/// Lines that begin with `#` and no blank are what could be written.
fn uncommented_reference() -> String {
    let text = config::read(Path::new("config/tidegate.toml")).unwrap();
    let written =
        |line: &str| line.starts_with(|first: char| first.is_ascii_lowercase() || first == '[');
    // The default of a key and its example are never both there.
    let defaults = ["hosts = {}", "#file = \"ledger.db\""];
    let lines = text.lines().filter(|line| !defaults.contains(line));
    let lines = lines.map(|line| {
        line.strip_prefix('#')
            .filter(|rest| written(rest))
            .unwrap_or(line)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn an_authority_is_read_when_it_is_there_and_its_key_is_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.toml");
    let write = |name: &str, text: &str, mode: u32| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    };
    let pair = "[inspect]\nca-cert = \"ca.pem\"\nca-key = \"ca.key\"\n";
    let load = |more: &str| config::load_text(&path, &format!("{pair}{more}"));
    // `tidegate ca init` has to load it before there is one.
    let (config, findings) = load("hosts = [\"example.com\"]\nprevious = [\"former.pem\"]\n");
    assert!(findings.is_empty(), "{}", diag::render(&findings, false));
    let config = config.unwrap();
    let authority = config.inspect.authority.unwrap();
    assert_eq!(codes(&authority.files.unwrap_err()), ["no-such-file"; 2]);
    assert!(authority.former.is_empty());
    assert_eq!(config.policy.inspect.unwrap().value.hosts.len(), 1);

    write("ca.pem", "", 0o644);
    write("ca.key", "", 0o600);
    let authority = load("").0.unwrap().inspect.authority.unwrap();
    assert!(authority.files.is_ok());
    write("ca.key", "", 0o640);
    assert_eq!(codes(&load("").1), ["key-exposed"]);
    write("ca.key", "", 0o600);
    write("short.key", "hunter2", 0o600);
    assert_eq!(
        codes(&load("credential-key = \"short.key\"\n").1),
        ["bad-key"]
    );
    write("long.key", &"k".repeat(32), 0o644);
    let exposed = load("credential-key = \"long.key\"\n");
    assert_eq!(codes(&exposed.1), ["key-exposed"]);
}

#[test]
fn a_new_authority_changes_the_digest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.toml");
    let text = "[inspect]\nca-cert = \"ca.pem\"\nca-key = \"ca.key\"\n";
    fs::write(&path, text).unwrap();
    let before = config::load(&path).0.unwrap();
    assert_eq!(config::digest_of_files(&before).unwrap(), before.digest);
    fs::write(folder.path().join("ca.pem"), "new").unwrap();
    assert_ne!(config::digest_of_files(&before).unwrap(), before.digest);
}

/// Files for TLS; what they say is read later.
fn write_certs(folder: &Path) {
    let certs = folder.join("certs");
    fs::create_dir(&certs).unwrap();
    for name in [
        "admin.pem",
        "admin.key",
        "operators-ca.pem",
        "operators.crl.pem",
        "proxy.pem",
        "proxy.key",
        "callers-ca.pem",
        "callers.crl.pem",
        "agent.pem",
        "agent.key",
        "agent.pass",
        "internal-ca.pem",
        "internal-ca.crl.pem",
        "acme-ca.pem",
        "gate.pem",
        "gate.key",
        "parent.credential",
        "clients.pem",
    ] {
        fs::write(certs.join(name), "user:password").unwrap();
        fs::set_permissions(certs.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn a_listener_with_tls_says_whose_certificates_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    write_certs(folder.path());
    let path = folder.path().join("tidegate.toml");
    let load = |more: &str| {
        let text = format!(
            "[listen]\nproxy-protocol = [\"10.0.0.0/8\", \"10.9.0.7\"]\n[listen.proxy-tls]\n\
             address = \"0.0.0.0:3129\"\ncert = \"certs/proxy.pem\"\nkey = \"certs/proxy.key\"\n{more}"
        );
        config::load_text(&path, &text)
    };
    let (config, findings) = load(
        "client-ca = \"certs/callers-ca.pem\"\ncrls = [\"certs/callers.crl.pem\"]\n\
         client-identity = [\"email\", \"cn\"]\n",
    );
    assert!(findings.is_empty(), "{}", diag::render(&findings, false));
    let listen = config.unwrap().listen;
    assert_eq!(listen.proxy.len(), 1, "no http:// listener beside it");
    assert_eq!(listen.proxy[0].balancers.len(), 2);
    let tls = listen.proxy[0].tls.clone().expect("TLS");
    let clients = tls.clients.clone().expect("certificates");
    assert!(clients.required && clients.crl_required);
    assert_eq!(clients.identity, [NameKind::Email, NameKind::CommonName]);

    let found = |more: &str| codes(&load(more).1);
    let ca = "client-ca = \"certs/callers-ca.pem\"\n";
    assert_eq!(found("client-cert = \"require\"\n"), ["missing-key"]);
    assert_eq!(
        found("crls = [\"certs/callers.crl.pem\"]\n"),
        ["unused-key"]
    );
    assert_eq!(found(&format!("{ca}crl = \"require\"\n")), ["missing-key"]);
    assert_eq!(found(&format!("{ca}crls = [\"gone\"]\n")), ["no-such-file"]);
    let lenient = format!("{ca}crls = [\"gone\"]\ncrl = \"if-present\"\n");
    let (config, findings) = load(&lenient);
    assert!(config.is_some(), "a warning");
    assert_eq!(codes(&findings), ["no-such-file"]);
    assert_eq!(
        found(&format!("{ca}client-identity = [\"name\"]\n")),
        ["unknown-word"]
    );
    let key = folder.path().join("certs/proxy.key");
    fs::set_permissions(key, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(found(ca), ["key-exposed"]);
}

#[test]
fn an_upstream_says_who_we_are_and_whom_to_believe() {
    let folder = tempfile::tempdir().unwrap();
    write_certs(folder.path());
    let path = folder.path().join("tidegate.toml");
    let own = "[upstream.internal]\nclient-cert = \"certs/agent.pem\"\nclient-key = \"certs/agent.key\"\n";
    let load = |more: &str| config::load_text(&path, &format!("{own}{more}"));
    let (config, findings) = load(
        "client-key-passphrase = \"certs/agent.pass\"\nroots = [\"certs/internal-ca.pem\"]\n\
         min-version = \"1.3\"\nserver-name = \"internal.example\"\nport = 8443\n\
         hosts = [\"10.0.0.7\"]\ncategories = [\"mcp\"]\n\
         pins = [\"sha256/AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"]\n",
    );
    assert!(findings.is_empty(), "{}", diag::render(&findings, false));
    let config = config.unwrap();
    let upstream = &config.upstreams[0];
    let client = upstream.client.as_ref().expect("a certificate");
    assert!(client.passphrase.is_some() && client.key.path.ends_with("certs/agent.key"));
    assert_eq!((upstream.roots.len(), upstream.port), (1, 8443));
    assert_eq!((upstream.pins.len(), upstream.pins[0][0]), (1, 1));
    assert_eq!(
        (upstream.min, upstream.max),
        (TlsVersion::Tls13, TlsVersion::Tls13)
    );
    let name = upstream.server_name.as_ref().expect("a name");
    assert_eq!(name.to_string(), "internal.example");
    let (name, destinations) = &config.policy.upstreams[0];
    assert_eq!(name.get_ref(), "internal");
    assert_eq!(destinations.value.hosts[0].get_ref(), "10.0.0.7");
    assert_eq!(destinations.value.categories[0].get_ref(), "mcp");

    let defaults = &load("").0.unwrap().upstreams[0];
    assert_eq!((defaults.min, defaults.port), (TlsVersion::Tls12, 443));
    for secret in ["agent.key", "agent.pass"] {
        let secret = folder.path().join("certs").join(secret);
        let mode = |mode| fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o604);
        let found = load("client-key-passphrase = \"certs/agent.pass\"\n").1;
        assert_eq!(codes(&found), ["key-exposed"], "{}", secret.display());
        mode(0o600);
    }
}

/// What an upstream is made of is part of the digest: a reload follows it.
#[test]
fn the_files_of_an_upstream_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    write_certs(folder.path());
    let path = folder.path().join("tidegate.toml");
    let text = "[upstream.internal]\nclient-cert = \"certs/agent.pem\"\nclient-key = \"certs/agent.key\"\n\
                client-key-passphrase = \"certs/agent.pass\"\nroots = [\"certs/internal-ca.pem\"]\n";
    fs::write(&path, text).unwrap();
    let config = config::load(&path).0.expect("it loads");
    let now = || config::digest_of_files(&config).unwrap();
    assert_eq!(now(), config.digest);
    for name in ["agent.pem", "agent.key", "agent.pass", "internal-ca.pem"] {
        let file = folder.path().join("certs").join(name);
        let before = config::read(&file).unwrap();
        fs::write(&file, "other").unwrap();
        assert_ne!(now(), config.digest, "{name}");
        fs::write(&file, before).unwrap();
        assert_eq!(now(), config.digest, "{name}");
    }
}

/// The pair that the reference names.
fn write_keys(folder: &Path) {
    use base64::Engine as _;
    let der = identity::new_pkcs8().unwrap();
    let signer = identity::Signer::from_pkcs8(&der).unwrap();
    // An Ed25519 key in SPKI (RFC 8410).
    let prefix = [48, 42, 48, 5, 6, 3, 43, 101, 112, 3, 33, 0];
    let public = [&prefix[..], &signer.public().bytes].concat();
    let pem = |kind: &str, der: &[u8]| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
    };
    let keys = folder.join("keys");
    fs::create_dir(&keys).unwrap();
    fs::write(keys.join("sessions-2026.pub"), pem("PUBLIC KEY", &public)).unwrap();
    let credentials = keys.join("credentials.key");
    fs::write(&credentials, "k".repeat(32)).unwrap();
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o600)).unwrap();
    let metrics = keys.join("metrics.token");
    fs::write(&metrics, "t".repeat(32)).unwrap();
    fs::set_permissions(&metrics, fs::Permissions::from_mode(0o600)).unwrap();
    let private = keys.join("sessions-2026.key");
    fs::write(&private, pem("PRIVATE KEY", &der)).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn what_the_reference_shows_in_comments_is_right_too() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policy")).unwrap();
    fs::create_dir(folder.path().join("secrets")).unwrap();
    fs::write(folder.path().join("policy/a.toml"), "").unwrap();
    fs::write(
        folder.path().join("secrets/ci"),
        format!("sha256:{}\n", "0".repeat(64)),
    )
    .unwrap();
    write_certs(folder.path());
    write_keys(folder.path());
    let root = rcgen::generate_simple_self_signed(vec!["issuer.acme.example".to_owned()]);
    let root = root.unwrap().cert.pem();
    fs::write(folder.path().join("issuer-ca.pem"), &root).unwrap();
    fs::write(folder.path().join("db-ca.pem"), &root).unwrap();
    fs::write(folder.path().join("hooks-ca.pem"), root).unwrap();
    let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    for (name, text) in [
        ("notify.key", key),
        ("slack.url", "https://hooks.example.net/a\n"),
    ] {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let password = folder.path().join("ledger.password");
    fs::write(&password, "word").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let path = folder.path().join("tidegate.toml");
    let (config, mut findings) = config::load_text(&path, &uncommented_reference());
    // No date stays within 90 days.
    findings.retain(|finding| finding.code != "exception-ended");
    assert!(findings.is_empty(), "{}", diag::render(&findings, false));
    let config = config.expect("no finding, so there is a configuration");
    assert_eq!(config.identity.users.len(), 2);
    compiles(&config);
}

#[test]
fn what_the_reference_says_is_the_default_is_the_default() {
    let (config, reference) = (
        good("tests/config/good/empty.toml"),
        good("config/tidegate.toml"),
    );
    assert_eq!(config.listen.proxy, reference.listen.proxy);
    assert_eq!(config.listen.admin, reference.listen.admin);
    assert_eq!(config.limits, reference.limits);
    assert_eq!(config.dial, reference.dial);
    assert_eq!(config.identity, reference.identity);
    assert_eq!(config.record.on_failure, reference.record.on_failure);
    assert_eq!(config.record.rotate_size, reference.record.rotate_size);
    assert_eq!(config.record.rotate_keep, reference.record.rotate_keep);
    assert_eq!(
        reference.record.file.as_deref(),
        Some(Path::new("config/decisions.jsonl"))
    );
}

fn codes(findings: &[Diagnostic]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.code).collect()
}

#[test]
fn files_that_cannot_be_read_are_findings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    let found = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let (config, findings) = config::load(&path);
        assert!(config.is_none());
        assert_eq!(
            diag::render(&findings, false).lines().count(),
            2,
            "a line each, and a count"
        );
        codes(&findings)
    };
    assert_eq!(found(b"# \n# \xff\n"), ["not-utf8"]);
    assert_eq!(found(&vec![b'\n'; (8 << 20) + 1]), ["too-large"]);
    assert_eq!(
        codes(&config::load(&folder.path().join("b.toml")).1),
        ["no-such-file"]
    );
    assert_eq!(codes(&config::load(folder.path()).1), ["unreadable"]);
}

#[test]
fn a_byte_order_mark_and_windows_lines_are_taken() {
    let text = "\u{feff}[listen]\r\nproxy = [\"127.0.0.1:9\"]\r\nadmim = \"none\"\r\n";
    let (_, findings) = config::load_text(Path::new("a.toml"), text);
    let said = diag::render(&findings, false);
    assert!(
        said.contains("a.toml:3:1") && said.contains("did you mean `admin`?"),
        "{said}"
    );
    let (config, findings) =
        config::load_text(Path::new("a.toml"), &text.replace("admim", "admin"));
    assert!(findings.is_empty());
    assert_eq!(config.unwrap().listen.admin, None);
}

#[test]
fn more_than_a_thousand_files_are_a_finding() {
    let folder = tempfile::tempdir().unwrap();
    for file in 0..1_001 {
        fs::write(folder.path().join(format!("{file:04}.conf")), "").unwrap();
    }
    let path = folder.path().join("a.toml");
    let (config, findings) = config::load_text(&path, "include = [\"*.conf\"]");
    assert!(config.is_none());
    assert_eq!(codes(&findings), ["include-many"]);
}

#[test]
fn the_digest_follows_every_file_and_only_their_texts() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write(
        "main.toml",
        "include = [\"*.conf\"]\n[[identity.user]]\nname = \"a\"\nsecret-file = \"s\"\n",
    );
    write("b.conf", "[[rule]]\nid = \"b\"\nverdict = \"deny\"\n");
    write("s", &format!("sha256:{}", "0".repeat(64)));
    let load = || {
        config::load(&folder.path().join("main.toml"))
            .0
            .expect("it loads")
    };
    let mut config = load();
    assert_eq!(config.digest.len(), 64);
    let changed = |config: &mut Config, what: &str| {
        let now = config::digest_of_files(config).unwrap();
        assert_ne!(now, config.digest, "{what}");
        assert_eq!(now, config::digest_of_files(config).unwrap(), "{what}");
        *config = load();
        assert_eq!(now, config.digest, "{what}: as it is loaded");
    };
    assert_eq!(config::digest_of_files(&config).unwrap(), config.digest);
    write("b.conf", "[[rule]]\nid = \"b\"\nverdict = \"allow\"\n");
    changed(&mut config, "an included file changed");
    write("a.conf", "");
    changed(&mut config, "a file was added");
    fs::remove_file(folder.path().join("a.conf")).unwrap();
    changed(&mut config, "a file was taken away");
    write("s", &format!("sha256:{}", "1".repeat(64)));
    changed(&mut config, "a secret changed");
    write("c.conf", "include = [\"d.more\"]\n");
    write("d.more", "# more\n");
    changed(&mut config, "a new file includes another");
    write("b.conf", "[[rule]]\nid = \"b\"\nverdict = \"allow\"\n");
    assert_eq!(config::digest_of_files(&config).unwrap(), config.digest);
    fs::remove_file(folder.path().join("d.more")).unwrap();
    assert!(config::digest_of_files(&config).is_err());
    fs::remove_file(folder.path().join("c.conf")).unwrap();
    fs::remove_file(folder.path().join("s")).unwrap();
    assert_ne!(config::digest_of_files(&config).unwrap(), config.digest);
}

#[test]
fn the_digest_of_what_is_no_file_does_not_change() {
    let (config, _) = config::load_text(Path::new("absent/a.toml"), "[listen]\n");
    let config = config.unwrap();
    assert_eq!(config::digest_of_files(&config).unwrap(), config.digest);
    assert_eq!(config.path, None);
    let embedded = config::embedded();
    assert_eq!(config::digest_of_files(&embedded).unwrap(), embedded.digest);
}

#[test]
fn deep_nesting_is_refused_and_not_run_into() {
    for text in [
        format!("{} = 1", vec!["a"; 100_000].join(".")),
        format!("[{}]", vec!["a"; 100_000].join(".")),
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a=".repeat(100_000)),
        format!("[rule]\n{} = 1", vec!["a"; 100_000].join(" . ")),
    ] {
        let (config, findings) = config::load_text(Path::new("a.toml"), &text);
        assert!(config.is_none() && !findings.is_empty());
        diag::render(&findings, false);
    }
}

#[test]
fn a_hundred_thousand_hosts_load_in_one_rule_and_in_many() {
    let host = |n: usize| format!("\"host-{n}.example.com\"");
    let hosts: Vec<_> = (0..100_000).map(host).collect();
    let one = format!(
        "[[rule]]\nid = \"a\"\nverdict = \"deny\"\nto.hosts = [{}]\n",
        hosts.join(", ")
    );
    let (config, findings) = config::load_text(Path::new("a.toml"), &one);
    assert!(findings.is_empty());
    assert_eq!(
        config.unwrap().policy.rules[0].value.to.hosts.len(),
        100_000
    );
    let rule = |n: usize| {
        format!(
            "[[rule]]\nid = \"{n}\"\nverdict = \"deny\"\nto.hosts = [{}]\n",
            host(n)
        )
    };
    let many: String = (0..50_000).map(rule).collect();
    let (config, findings) = config::load_text(Path::new("a.toml"), &many);
    assert!(findings.is_empty());
    assert_eq!(config.unwrap().policy.rules.len(), 50_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_makes_loading_or_drawing_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..20),
    ) {
        let mut bytes = uncommented_reference().into_bytes();
        for (at, byte, kind) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let (config, findings) = config::load_text(Path::new("absent/a.toml"), &text);
        let errors = findings.iter().any(|finding| finding.severity == Severity::Error);
        prop_assert_eq!(config.is_none(), errors);
        diag::render(&findings, true);
    }
}

/// What a piece of a policy in the manual may leave out: files, and the authority that inspects. Its
/// exceptions end some day.
const LEFT_OUT: [&str; 3] = ["no-such-file", "no-authority", "exception-ended"];

/// The blocks of TOML in a chapter, with the line that each begins at.
fn toml_blocks(chapter: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut lines = chapter.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        // A walkthrough has tests of its own.
        if line == "```toml" {
            let block = lines.by_ref().map(|(_, line)| line);
            let block: Vec<_> = block.take_while(|line| *line != "```").collect();
            blocks.push((at + 2, block.join("\n")));
        }
    }
    blocks
}

#[test]
fn every_policy_of_the_manual_loads_and_its_examples_hold() {
    let (mut ran, mut wrong) = (0, String::new());
    for chapter in tidegate::manual::CHAPTERS {
        for (line, block) in toml_blocks(chapter.text) {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("tidegate.toml");
            fs::write(&file, &block).expect("a file");
            let (config, mut findings) = config::load(&file);
            if let Some(config) = &config {
                let (_, more) = policy::compile(&config.policy, &policy::built_in());
                ran += config.policy.rules.len();
                findings.extend(more);
            }
            findings.retain(|finding| !LEFT_OUT.contains(&finding.code));
            if !findings.is_empty() {
                let shown = diag::render(&findings, false);
                let place = format!("docs/{}.md:{line}", chapter.name);
                wrong.extend([&place, "\n", &block, "\n", &shown, "\n"]);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(ran > 5, "the manual has rules");
}
