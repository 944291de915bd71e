//! Finds the form of a section by the requests of its type to a deserializer.
//!
//! The deserializer gives a type each requested value, and stores the requests. So the schema has
//! the keys and types of the loader, without a second list.

use serde::de::value::{BorrowedStrDeserializer, Error};
use serde::de::{DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

/// The form of a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) enum Shape {
    /// `true` or `false`.
    Boolean,
    /// A date, with or without a time.
    Date,
    /// A whole number.
    Integer,
    /// A list.
    List(Box<Self>),
    /// A table with keys that the author chooses.
    Map(Box<Self>),
    /// One of several forms.
    OneOf(Vec<Self>),
    /// A table with fixed keys, in the order of the type.
    Table(Vec<Key>),
    /// A text.
    Text,
}

/// A key of a table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct Key {
    pub(in crate::config) name: &'static str,
    pub(in crate::config) shape: Shape,
    /// Whether a table without the key is refused.
    pub(in crate::config) is_required: bool,
}

/// Returns the form of a type. Fails if the type requests something that no section has.
pub(in crate::config) fn shape_of<T: DeserializeOwned>() -> Result<Shape, Error> {
    let mut shape = trace::<T>(&Plan::default())?;
    let mut tables = Vec::new();
    let mut choices = Vec::new();
    places(&shape, String::new(), &mut tables, &mut choices);
    for path in tables {
        let plan = Plan {
            omit: path.clone(),
            ..Plan::default()
        };
        if trace::<T>(&plan).is_err() {
            require(&mut shape, &path);
        }
    }
    for path in choices {
        for other in [Other::Boolean, Other::Integer, Other::List] {
            let plan = Plan {
                choose: Some((path.clone(), other)),
                ..Plan::default()
            };
            if trace::<T>(&plan).is_ok() {
                allow(&mut shape, &path, other);
            }
        }
    }
    Ok(shape)
}

/// The exceptions from the values that a type requests.
#[derive(Debug, Default)]
struct Plan {
    /// The path of an omitted key; empty: none.
    omit: String,
    /// The path of a value that may have any form, and the value there instead of a text.
    choose: Option<(String, Other)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Other {
    Boolean,
    Integer,
    List,
}

fn trace<T: DeserializeOwned>(plan: &Plan) -> Result<Shape, Error> {
    let mut shape = Shape::Text;
    T::deserialize(Tracer {
        plan,
        path: String::new(),
        shape: &mut shape,
    })?;
    Ok(shape)
}

/// The paths of keys, and of values of any form.
fn places(shape: &Shape, path: String, keys: &mut Vec<String>, choices: &mut Vec<String>) {
    match shape {
        Shape::Table(inner) => {
            for key in inner {
                let path = format!("{path}.{}", key.name);
                keys.push(path.clone());
                places(&key.shape, path, keys, choices);
            }
        }
        Shape::List(inner) | Shape::Map(inner) => {
            places(inner, format!("{path}.*"), keys, choices);
        }
        Shape::OneOf(_) => choices.push(path),
        Shape::Boolean | Shape::Date | Shape::Integer | Shape::Text => {}
    }
}

/// Returns the key of a path.
fn key_at<'s>(shape: &'s mut Shape, path: &str) -> Option<&'s mut Key> {
    let (name, rest) = match path.strip_prefix('.')?.split_once('.') {
        Some((name, rest)) => (name, format!(".{rest}")),
        None => (path.strip_prefix('.')?, String::new()),
    };
    match shape {
        Shape::Table(keys) => {
            let key = keys.iter_mut().find(|key| key.name == name)?;
            if rest.is_empty() {
                return Some(key);
            }
            key_at(&mut key.shape, &rest)
        }
        Shape::List(inner) | Shape::Map(inner) => key_at(inner, &rest),
        _ => None,
    }
}

fn require(shape: &mut Shape, path: &str) {
    if let Some(key) = key_at(shape, path) {
        key.is_required = true;
    }
}

fn allow(shape: &mut Shape, path: &str, other: Other) {
    let more = match other {
        Other::Boolean => Shape::Boolean,
        Other::Integer => Shape::Integer,
        Other::List => Shape::List(Box::new(Shape::Text)),
    };
    if let Some(Shape::OneOf(forms)) = key_at(shape, path).map(|key| &mut key.shape) {
        forms.push(more);
    }
}

/// A deserializer that gives a type each requested value.
struct Tracer<'t> {
    plan: &'t Plan,
    path: String,
    shape: &'t mut Shape,
}

impl Tracer<'_> {
    /// Gives a value inside of this one.
    fn inner<'a>(plan: &'a Plan, path: &str, name: &str, shape: &'a mut Shape) -> Tracer<'a> {
        Tracer {
            plan,
            path: format!("{path}.{name}"),
            shape,
        }
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.shape = Shape::Text;
        visitor.visit_str("")
    }

    fn integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.shape = Shape::Integer;
        visitor.visit_u64(1)
    }
}

macro_rules! integers {
    ($($name:ident)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.integer(visitor)
        })*
    };
}

macro_rules! texts {
    ($($name:ident)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.text(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Error;

    /// The type takes several forms.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.shape = Shape::OneOf(vec![Shape::Text]);
        let chosen = self.plan.choose.as_ref();
        match chosen.filter(|(path, _)| *path == self.path) {
            None => visitor.visit_str(""),
            Some((_, Other::Boolean)) => visitor.visit_bool(true),
            Some((_, Other::Integer)) => visitor.visit_i64(1),
            Some((_, Other::List)) => visitor.visit_seq(One {
                value: Some(Tracer::inner(self.plan, &self.path, "*", &mut Shape::Text)),
            }),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.shape = Shape::Boolean;
        visitor.visit_bool(true)
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    texts! { deserialize_str deserialize_string deserialize_identifier }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut inner = Shape::Text;
        let read = visitor.visit_seq(One {
            value: Some(Tracer::inner(self.plan, &self.path, "*", &mut inner)),
        })?;
        *self.shape = Shape::List(Box::new(inner));
        Ok(read)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut inner = Shape::Text;
        let read = visitor.visit_map(Entry {
            plan: self.plan,
            path: &self.path,
            value: &mut inner,
            is_read: false,
        })?;
        *self.shape = Shape::Map(Box::new(inner));
        Ok(read)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        // The types of `toml` for a value with its location, and for a date, are read as structs.
        if name.starts_with("$__serde_spanned") {
            return visitor.visit_map(Wrapped {
                fields: fields.iter(),
                field: "",
                value: self,
            });
        }
        if name.starts_with("$__toml") {
            *self.shape = Shape::Date;
            return visitor.visit_map(Day {
                fields: fields.iter(),
            });
        }
        let mut keys = Vec::new();
        let read = visitor.visit_map(Fields {
            plan: self.plan,
            path: &self.path,
            names: fields.iter(),
            name: "",
            keys: &mut keys,
        })?;
        *self.shape = Shape::Table(keys);
        Ok(read)
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum ignored_any
    }
}

/// A list of one value.
struct One<'t> {
    value: Option<Tracer<'t>>,
}

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.value
            .take()
            .map(|value| seed.deserialize(value))
            .transpose()
    }
}

/// A table with one key that the author chooses.
struct Entry<'t> {
    plan: &'t Plan,
    path: &'t str,
    value: &'t mut Shape,
    is_read: bool,
}

impl<'de> MapAccess<'de> for Entry<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        if std::mem::replace(&mut self.is_read, true) {
            return Ok(None);
        }
        let mut key = Shape::Text;
        seed.deserialize(Tracer::inner(self.plan, self.path, "*", &mut key))
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Tracer::inner(self.plan, self.path, "*", self.value))
    }
}

/// The keys of a struct.
struct Fields<'t> {
    plan: &'t Plan,
    path: &'t str,
    names: std::slice::Iter<'static, &'static str>,
    name: &'static str,
    keys: &'t mut Vec<Key>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let omitted = |field: &str| self.plan.omit == format!("{}.{field}", self.path);
        let Some(field) = self.names.by_ref().find(|field| !omitted(field)) else {
            return Ok(None);
        };
        self.name = field;
        Ok(Some(seed.deserialize(name(field))?))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let mut shape = Shape::Text;
        let read = seed.deserialize(Tracer::inner(self.plan, self.path, self.name, &mut shape))?;
        self.keys.push(Key {
            name: self.name,
            shape,
            is_required: false,
        });
        Ok(read)
    }
}

/// A value with its location in the file.
struct Wrapped<'t> {
    fields: std::slice::Iter<'static, &'static str>,
    field: &'static str,
    value: Tracer<'t>,
}

impl<'de> MapAccess<'de> for Wrapped<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some(field) = self.fields.next() else {
            return Ok(None);
        };
        self.field = field;
        Ok(Some(seed.deserialize(name(field))?))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Tracer { plan, path, shape } = &mut self.value;
        let mut place = Shape::Integer;
        seed.deserialize(Tracer {
            plan,
            path: path.clone(),
            shape: if self.field.ends_with("_value") {
                shape
            } else {
                &mut place
            },
        })
    }
}

/// A date.
struct Day {
    fields: std::slice::Iter<'static, &'static str>,
}

impl<'de> MapAccess<'de> for Day {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let field = self.fields.next();
        field.map(|field| seed.deserialize(name(field))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(name("2026-11-30"))
    }
}

/// A deserializer of a text.
fn name<'de>(text: &'static str) -> BorrowedStrDeserializer<'de, Error> {
    BorrowedStrDeserializer::new(text)
}
