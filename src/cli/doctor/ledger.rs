//! Checks whether the ledger of the running gate answers.

use serde_json::Value;

use crate::app::Loaded;
use crate::cli::admin;

use super::report::Item;

/// Reads the state of the ledger from the gate; `None`: none is configured.
pub(super) fn look(loaded: &Loaded) -> Option<Item> {
    const SUBJECT: &str = "ledger";
    let config = loaded.config.as_ref()?;
    config.ledger.as_ref()?;
    let address = config.listen.admin.clone();
    let address = address.unwrap_or_else(admin::default_address);
    let said = admin::ask(&address, "/v1/policy").ok();
    let said = said.and_then(|(_, body)| serde_json::from_str::<Value>(&body).ok());
    let Some(ledger) = said.as_ref().and_then(|it| it.get("ledger")) else {
        let text = "the gate cannot be reached from here";
        return Some(Item::unknown("policy", SUBJECT, text));
    };
    let is = |key: &str| ledger.get(key).and_then(Value::as_bool) == Some(true);
    let number = |key: &str| ledger.get(key).and_then(Value::as_u64).unwrap_or_default();
    let answered = ledger.get("answered").and_then(Value::as_str);
    let answered = answered.unwrap_or("never");
    let (revision, failures) = (number("revision"), number("failures"));
    if is("answers") {
        let text = format!("it answers: entry {revision}, {failures} failures since the start");
        return Some(Item::fine("policy", SUBJECT, text));
    }
    let effect = if is("stale") {
        "what it grants counts as ended"
    } else {
        "what it grants counts until `stale-after`"
    };
    let text = format!("it does not answer since {answered}: {effect}");
    let fix = "the gate's log has the reason; look at the file or the database of `[ledger]`";
    Some(Item::finding("policy", SUBJECT, text).fix(fix))
}
