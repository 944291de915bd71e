//! Makes the JSON Schema of the configuration: the keys, types and allowed words of the loader, and
//! the descriptions of the reference.

mod shape;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::policy;

use super::written::{KnownSection, known_sections};
use super::{issuer, listen, parent, preset, record, session, tls, upstream};
pub(super) use shape::{Shape, shape_of};

/// The text of `config/tidegate.toml`, which describes each key.
const REFERENCE: &str = include_str!("../../config/tidegate.toml");

/// Returns the schema (JSON Schema, draft 2020-12) of a configuration file.
///
/// # Errors
///
/// If the type of a section has a form that no file can have. A test makes the schema.
pub fn schema() -> Result<Value, String> {
    let sections = known_sections();
    let described = descriptions(REFERENCE, &sections);
    let (shared, sections): (Vec<_>, Vec<_>) =
        { sections.into_iter() }.partition(KnownSection::is_shared);
    let mut top = Map::new();
    for (name, form) in [("include", list(&text())), ("shadow", text())] {
        let description = described.get(&(String::new(), name.to_owned()));
        top.insert(name.to_owned(), with_description(form, description));
    }
    let writer = Writer {
        described: &described,
        shared: shared.iter().map(|it| it.what).collect(),
    };
    for section in sections {
        let table = writer.section(&section)?;
        add(&mut top, section.what, &table);
    }
    let mut defs = Map::new();
    for section in &shared {
        defs.insert(section.what.to_owned(), writer.section(section)?);
    }
    Ok(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tidegate configuration",
        "type": "object",
        "additionalProperties": false,
        "properties": top,
        "$defs": defs,
    }))
}

/// Adds a section by its heading: `[a]`, `[[a]]`, `[a.NAME]`, `[a.b]` or `[[a.b]]`.
fn add(top: &mut Map<String, Value>, what: &str, table: &Value) {
    let name = what.trim_matches(['[', ']']);
    let form = if what.starts_with("[[") {
        list(table)
    } else {
        table.clone()
    };
    let Some((around, inner)) = name.split_once('.') else {
        top.insert(name.to_owned(), form);
        return;
    };
    if inner == "NAME" {
        top.insert(
            around.to_owned(),
            json!({ "type": "object", "additionalProperties": table }),
        );
        return;
    }
    // A parent proxy is one table or a list of them.
    let form = if what == parent::WHAT {
        json!({ "oneOf": [table, form] })
    } else {
        form
    };
    let around = top.entry(around).or_insert_with(
        || json!({ "type": "object", "additionalProperties": false, "properties": {} }),
    );
    if let Some(keys) = around.get_mut("properties").and_then(Value::as_object_mut) {
        keys.insert(inner.to_owned(), form);
    }
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn list(of: &Value) -> Value {
    json!({ "type": "array", "items": of })
}

fn with_description(mut form: Value, description: Option<&String>) -> Value {
    if let (Some(form), Some(description)) = (form.as_object_mut(), description) {
        form.insert("description".to_owned(), description.as_str().into());
    }
    form
}

/// Writes shapes as schemas.
struct Writer<'w> {
    described: &'w Descriptions,
    /// Tables of several sections: `from`, `to` and the like.
    shared: Vec<&'static str>,
}

impl Writer<'_> {
    fn section(&self, section: &KnownSection) -> Result<Value, String> {
        let shape = (section.shape)().map_err(|error| format!("{}: {error}", section.what))?;
        Ok(self.form(&shape, section.what, ""))
    }

    /// Returns the schema of a key of a table.
    fn form(&self, shape: &Shape, table: &str, key: &str) -> Value {
        match shape {
            Shape::Boolean => json!({ "type": "boolean" }),
            Shape::Integer => json!({ "type": "integer" }),
            Shape::Date => text(),
            Shape::Text => match words(table, key) {
                words if words.is_empty() => text(),
                words => json!({ "type": "string", "enum": words }),
            },
            Shape::List(inner) => list(&self.form(inner, table, key)),
            Shape::Map(inner) => {
                json!({ "type": "object", "additionalProperties": self.form(inner, table, key) })
            }
            Shape::OneOf(forms) => {
                let forms: Vec<Value> = forms
                    .iter()
                    .map(|form| self.form(form, table, key))
                    .collect();
                json!({ "oneOf": forms })
            }
            Shape::Table(_) if self.shared.contains(&key) => {
                json!({ "$ref": format!("#/$defs/{key}") })
            }
            Shape::Table(keys) => {
                let table = if key.is_empty() { table } else { key };
                let each = keys.iter().map(|key| {
                    let form = self.form(&key.shape, table, key.name);
                    (
                        key.name.to_owned(),
                        with_description(form, self.description(table, key.name)),
                    )
                });
                let each: Map<String, Value> = each.collect();
                let required: Vec<&str> = keys
                    .iter()
                    .filter(|key| key.is_required)
                    .map(|key| key.name)
                    .collect();
                let mut form =
                    json!({ "type": "object", "additionalProperties": false, "properties": each });
                if let (false, Some(form)) = (required.is_empty(), form.as_object_mut()) {
                    form.insert("required".to_owned(), required.into());
                }
                form
            }
        }
    }

    /// Returns the description of a key in the reference.
    fn description(&self, table: &str, key: &str) -> Option<&String> {
        let of = |table: String| self.described.get(&(table, key.to_owned()));
        // The tables within [listen], and `tls` of a [[listener]], which has the same keys.
        of(table.to_owned())
            .or_else(|| of(format!("[listen.{table}]")))
            .or_else(|| of("[listen.proxy-tls]".to_owned()).filter(|_| table == "tls"))
    }
}

/// Returns the allowed words of a key; none: any text.
fn words(table: &str, key: &str) -> Vec<String> {
    let tls = ["proxy-tls", "admin-tls", "tls"].contains(&table);
    match (table, key) {
        (_, "client-cert") if tls => names(&tls::CLIENT_CERT),
        (_, "client-identity") if tls => names(&tls::CLIENT_IDENTITY),
        (_, "crl") if tls => names(&tls::CRL),
        ("[[listener]]", "identity") => names(&listen::IDENTITY),
        (parent::WHAT, "resolve") => names(&parent::RESOLVE),
        (parent::WHAT, "fall-back") => names(&parent::FALL_BACK),
        ("[record]", "on-failure") => names(&record::ON_FAILURE),
        ("[identity.session]", "local") => names(&session::LOCAL),
        ("[identity.session]", "header-mismatch") => names(&session::HEADER_MISMATCH),
        ("[[identity.issuer]]", "preset") => preset::PRESETS
            .iter()
            .map(|it| it.name.to_owned())
            .collect(),
        ("[[identity.issuer]]", "algorithms") => issuer::ALGORITHMS.map(str::to_owned).into(),
        ("[upstream.NAME]", "min-version" | "max-version") => names(&upstream::VERSIONS),
        _ => policy::choices(table, key),
    }
}

fn names<T>(words: &[(&str, T)]) -> Vec<String> {
    words.iter().map(|(word, _)| (*word).to_owned()).collect()
}

/// The comments above keys, by section and key.
type Descriptions = BTreeMap<(String, String), String>;

/// Reads the reference: the comment above a key, or above a commented-out key, is its description.
fn descriptions(reference: &str, sections: &[KnownSection]) -> Descriptions {
    let mut found = Descriptions::new();
    let mut section = String::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in reference.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment.push(text);
            continue;
        }
        let written = line.strip_prefix('#').unwrap_or(line);
        if written.starts_with('[') {
            section = heading(written, sections);
        } else if let Some((key, _)) = written.split_once(" = ")
            && !comment.is_empty()
        {
            // `from.tiers` is the key `tiers` of `from`.
            let place = match key.split_once('.') {
                Some((table, key)) => (table.to_owned(), key.to_owned()),
                None => (section.clone(), key.trim_end().to_owned()),
            };
            found.entry(place).or_insert_with(|| comment.join(" "));
        }
        comment.clear();
    }
    found
}

/// Returns the heading of a section, with `NAME` for a name that the author chooses.
fn heading(line: &str, sections: &[KnownSection]) -> String {
    let name = line.trim_matches(['[', ']']);
    let around = name
        .split_once('.')
        .map(|(around, _)| format!("[{around}.NAME]"));
    let is_known = |what: &String| sections.iter().any(|it| it.what == *what);
    around.filter(is_known).unwrap_or_else(|| line.to_owned())
}
