//! Tests of the tier and groups of a caller.

use super::*;

const CALLERS: &str = r#"
[tiers]
order = ["open", "standard", "restricted"]
unattributed = "standard"
[tier.open]
default = "allow"
[tier.standard]
default = "allow"
[tier.restricted]
default = "ask"
[[repository]]
match = "github.com/acme/**"
tier = "open"
[[repository]]
match = "github.com/acme/payments*"
tier = "restricted"
[group.contractors]
members = ["subject:ana@acme.example", "claim:repository_owner=acme-labs", "san:spiffe://acme/ci/*"]
floor = "restricted"
[group.staff]
members = ["subject:*@staff.example", "subject:b*"]
floor = "open"
"#;

fn who(facts: &Facts<'_>) -> (String, TierBasis, Vec<String>) {
    let text = CALLERS.replace("subject:*@staff.example", "subject:carol");
    let policy = compiled(&text);
    let who = policy.who(facts);
    let groups = policy
        .group_names(who.groups)
        .map(ToString::to_string)
        .collect();
    (
        policy.tier_name(who.tier).to_string(),
        who.tier_basis,
        groups,
    )
}

fn tier(facts: &Facts<'_>) -> (String, TierBasis) {
    let (tier, basis, _) = who(facts);
    (tier, basis)
}

#[test]
fn the_strictest_pattern_says_the_tier_of_a_repository() {
    let repository = |name: &str| {
        let name: Arc<str> = name.into();
        tier(&Facts {
            repository: Some(&name),
            ..Facts::default()
        })
    };
    assert_eq!(
        repository("github.com/acme/x"),
        ("open".into(), TierBasis::Repository)
    );
    let payments = ("restricted".into(), TierBasis::Repository);
    assert_eq!(repository("github.com/acme/payments-api"), payments);
    assert_eq!(repository("github.com/ACME/Payments"), payments);
    assert_eq!(
        repository("github.com/other/x"),
        ("standard".into(), TierBasis::Unattributed)
    );
}

#[test]
fn the_strictest_of_all_evidence_wins() {
    let open: Arc<str> = "github.com/acme/x".into();
    let facts = Facts {
        repository: Some(&open),
        listener_tier: Some("standard"),
        ..Facts::default()
    };
    assert_eq!(tier(&facts), ("standard".into(), TierBasis::Listener));
    let facts = Facts {
        subject: "ana@acme.example",
        ..facts
    };
    assert_eq!(tier(&facts), ("restricted".into(), TierBasis::Group));
    let facts = Facts {
        listener_tier: Some("open"),
        ..Facts::default()
    };
    assert_eq!(tier(&facts), ("standard".into(), TierBasis::Unattributed));
    assert_eq!(
        tier(&Facts::default()),
        ("standard".into(), TierBasis::Unattributed)
    );
}

#[test]
fn a_listener_with_a_tier_that_does_not_exist_gets_the_strictest() {
    let facts = Facts {
        listener_tier: Some("gone"),
        ..Facts::default()
    };
    assert_eq!(tier(&facts), ("restricted".into(), TierBasis::Listener));
}

#[test]
fn members_are_told_by_subject_claim_or_certificate() {
    let groups = |facts: &Facts<'_>| who(facts).2;
    let claim = |name: &str, value: &str| [(Arc::from(name), Arc::from(value))];
    assert_eq!(
        groups(&Facts {
            subject: "ana@acme.example",
            ..Facts::default()
        }),
        ["contractors"]
    );
    assert_eq!(
        groups(&Facts {
            subject: "bob",
            ..Facts::default()
        }),
        ["staff"]
    );
    assert!(
        groups(&Facts {
            subject: "ana@acme.example.net",
            ..Facts::default()
        })
        .is_empty()
    );
    let owner = claim("repository_owner", "acme-labs");
    assert_eq!(
        groups(&Facts {
            claims: &owner,
            ..Facts::default()
        }),
        ["contractors"]
    );
    let other = claim("repository_owner", "acme-labs-x");
    assert!(
        groups(&Facts {
            claims: &other,
            ..Facts::default()
        })
        .is_empty()
    );
    let sans: [Arc<str>; 1] = ["spiffe://acme/ci/build".into()];
    assert_eq!(
        groups(&Facts {
            sans: &sans,
            ..Facts::default()
        }),
        ["contractors"]
    );
    let named: [Arc<str>; 2] = ["staff".into(), "gone".into()];
    assert_eq!(
        groups(&Facts {
            groups: &named,
            ..Facts::default()
        }),
        ["staff"]
    );
    assert!(groups(&Facts::default()).is_empty());
}

#[test]
fn unattributed_callers_are_in_the_strictest_tier_unless_the_policy_names_another() {
    let policy = compiled(TIERS);
    let who = policy.who(&Facts::default());
    assert_eq!(&**policy.tier_name(who.tier), "restricted");
}

#[test]
fn tiers_are_listed_from_the_loosest() {
    let policy = compiled(TIERS);
    let names: Vec<&str> = policy.tiers().iter().map(|name| &**name).collect();
    assert_eq!(names, ["open", "standard", "restricted"]);
    assert_eq!(policy.tier("standard"), Some(TierId(1)));
    assert_eq!(policy.tier("gone"), None);
}

#[test]
fn a_session_is_no_looser_than_what_it_was_narrowed_to() {
    let open: Arc<str> = "github.com/acme/x".into();
    let narrow = |tiers: &[&str]| {
        let narrow: Vec<Arc<str>> = tiers.iter().map(|tier| (*tier).into()).collect();
        tier(&Facts {
            repository: Some(&open),
            narrow: &narrow,
            ..Facts::default()
        })
    };
    assert_eq!(narrow(&["open"]), ("open".into(), TierBasis::Repository));
    assert_eq!(
        narrow(&["open", "restricted"]),
        ("restricted".into(), TierBasis::Session)
    );
    // An unknown tier counts as the strictest.
    assert_eq!(
        narrow(&["made-up"]),
        ("restricted".into(), TierBasis::Session)
    );
}

#[test]
fn the_tier_that_evidence_says_of_a_repository_stands_beside_the_list() {
    let known: Arc<str> = "github.com/acme/x".into();
    let unknown: Arc<str> = "github.com/other/x".into();
    let said = |repository: &Arc<str>, said: &str| {
        tier(&Facts {
            repository: Some(repository),
            repository_tier: Some(said),
            ..Facts::default()
        })
    };
    assert_eq!(
        said(&unknown, "open"),
        ("open".into(), TierBasis::Repository)
    );
    assert_eq!(
        said(&known, "restricted"),
        ("restricted".into(), TierBasis::Repository)
    );
}

#[test]
fn what_lies_outside_of_a_narrowing_is_denied_in_observe_mode_too() {
    let policy = compiled(
        "[tiers]
order = [\"open\"]
[tier.open]
mode = \"observe\"
default = \"allow\"
",
    );
    let mut asking = asking(&policy, "open");
    let within = Within::parse(["model-api", "package-registry:read"]).unwrap();
    asking.who.within = Some(Arc::new(within));
    let denied = asking.connect("files.example.net:443");
    assert_eq!(
        (denied.verdict, denied.reason, &*denied.rule.name),
        (Verdict::Deny, Reason::CategoryDenied, "session.narrow")
    );
    assert_eq!(
        asking.connect("api.model.example:443").verdict,
        Verdict::Allow
    );
}
