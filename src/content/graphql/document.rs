//! The definitions of a GraphQL document, and the top-level fields of each.
//!
//! The reader does not check the whole grammar: inside arguments it only matches brackets. It
//! checks strictly where a definition begins and which kind it has.

use std::collections::{BTreeMap, BTreeSet};

use super::lexer::{Lexer, Token};

/// Maximum nesting depth of selections or values.
const MAX_DEPTH: usize = 200;
/// Maximum number of definitions in a document.
const MAX_DEFINITIONS: usize = 1000;
/// Maximum length of a field name, in bytes.
const MAX_FIELD_SIZE: usize = 100;

/// The kind of an operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Query,
    Mutation,
    Subscription,
}

/// The operations and fragments of a document.
pub(super) struct Document<'a> {
    operations: Vec<(Kind, Selection<'a>)>,
    fragments: BTreeMap<&'a str, Selection<'a>>,
}

/// The top-level fields of an operation, with those in inline fragments.
#[derive(Default)]
struct Selection<'a> {
    /// Names of fields, without aliases.
    fields: BTreeSet<&'a str>,
    /// Names of fragments.
    spreads: BTreeSet<&'a str>,
}

impl<'a> Document<'a> {
    /// Parses a document; `None` if it is malformed, has no operation, or defines types.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let mut reader = Reader {
            lexer: Lexer::new(text),
            next: None,
        };
        reader.step()?;
        let mut document = Self {
            operations: Vec::new(),
            fragments: BTreeMap::new(),
        };
        while let Some(token) = reader.next {
            document.define(token, &mut reader)?;
            if document.operations.len() + document.fragments.len() > MAX_DEFINITIONS {
                return None;
            }
        }
        (!document.operations.is_empty()).then_some(document)
    }

    /// Reads one definition.
    fn define(&mut self, first: Token<'a>, reader: &mut Reader<'a>) -> Option<()> {
        let kind = match first {
            Token::Mark(b'{') => {
                self.operations.push((Kind::Query, reader.selection()?));
                return Some(());
            }
            Token::Name("fragment") => return self.define_fragment(reader),
            Token::Name("query") => Kind::Query,
            Token::Name("mutation") => Kind::Mutation,
            Token::Name("subscription") => Kind::Subscription,
            _ => return None,
        };
        reader.step()?;
        if matches!(reader.next, Some(Token::Name(_))) {
            reader.step()?;
        }
        reader.brackets()?;
        reader.directives()?;
        self.operations.push((kind, reader.selection()?));
        Some(())
    }

    fn define_fragment(&mut self, reader: &mut Reader<'a>) -> Option<()> {
        reader.step()?;
        let name = reader.name()?;
        if reader.name()? != "on" || name == "on" {
            return None;
        }
        reader.name()?;
        reader.directives()?;
        let selection = reader.selection()?;
        self.fragments
            .insert(name, selection)
            .is_none()
            .then_some(())
    }

    /// Whether the document has an operation of this kind.
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.operations.iter().any(|(found, _)| *found == kind)
    }

    /// Returns the fields that the mutations select, through fragments; `None` if not all can be
    /// determined. Fields of the language itself (`__typename`) change nothing.
    pub(super) fn changes(&self) -> Option<BTreeSet<Box<str>>> {
        let mutations = self
            .operations
            .iter()
            .filter(|(kind, _)| *kind == Kind::Mutation);
        let mut open: Vec<&Selection<'_>> = mutations.map(|(_, selection)| selection).collect();
        let mut followed = BTreeSet::new();
        let mut fields: BTreeSet<Box<str>> = BTreeSet::new();
        while let Some(selection) = open.pop() {
            for field in selection
                .fields
                .iter()
                .filter(|field| !field.starts_with("__"))
            {
                fields.insert(Box::from(*field));
            }
            for spread in selection
                .spreads
                .iter()
                .filter(|spread| followed.insert(**spread))
            {
                open.push(self.fragments.get(spread)?);
            }
        }
        let all_fit = fields.iter().all(|field| field.len() <= MAX_FIELD_SIZE);
        all_fit.then_some(fields)
    }
}

/// Reads token by token, one token ahead. Its functions return `None` for malformed text.
struct Reader<'a> {
    lexer: Lexer<'a>,
    next: Option<Token<'a>>,
}

impl<'a> Reader<'a> {
    fn step(&mut self) -> Option<()> {
        self.next = self.lexer.next().ok()?;
        Some(())
    }

    fn is_at(&self, mark: u8) -> bool {
        self.next == Some(Token::Mark(mark))
    }

    fn name(&mut self) -> Option<&'a str> {
        let Some(Token::Name(name)) = self.next else {
            return None;
        };
        self.step()?;
        Some(name)
    }

    /// Skips arguments or variables in parentheses, if there are any.
    fn brackets(&mut self) -> Option<()> {
        if !self.is_at(b'(') {
            return Some(());
        }
        let mut open = Vec::new();
        loop {
            match self.next? {
                Token::Mark(b'(') => open.push(b')'),
                Token::Mark(b'[') => open.push(b']'),
                Token::Mark(b'{') => open.push(b'}'),
                Token::Mark(close @ (b')' | b']' | b'}')) if open.pop() != Some(close) => {
                    return None;
                }
                _ => {}
            }
            if open.len() > MAX_DEPTH {
                return None;
            }
            self.step()?;
            if open.is_empty() {
                return Some(());
            }
        }
    }

    /// Skips any number of `@name(…)`.
    fn directives(&mut self) -> Option<()> {
        while self.is_at(b'@') {
            self.step()?;
            self.name()?;
            self.brackets()?;
        }
        Some(())
    }

    /// Reads a selection set with its whole content.
    fn selection(&mut self) -> Option<Selection<'a>> {
        let mut selection = Selection::default();
        if !self.is_at(b'{') {
            return None;
        }
        self.step()?;
        // For each open set, whether it is at the top level.
        let mut open = vec![true];
        while let Some(top) = open.last().copied() {
            if self.is_at(b'}') {
                self.step()?;
                open.pop();
                continue;
            }
            if let Some(inner) = self.selected(top, &mut selection)? {
                open.push(inner);
            }
            if open.len() > MAX_DEPTH {
                return None;
            }
        }
        Some(selection)
    }

    /// Reads one field or fragment, up to the set that it opens; returns whether that set is at the
    /// top level.
    #[expect(
        clippy::option_option,
        reason = "the outer says that it cannot be read, as all here"
    )]
    fn selected(&mut self, top: bool, into: &mut Selection<'a>) -> Option<Option<bool>> {
        if self.next == Some(Token::Spread) {
            return self.spread(top, into);
        }
        let mut field = self.name()?;
        if self.is_at(b':') {
            self.step()?;
            field = self.name()?;
        }
        if top {
            into.fields.insert(field);
        }
        self.brackets()?;
        self.directives()?;
        self.opened(false)
    }

    #[expect(
        clippy::option_option,
        reason = "the outer says that it cannot be read, as all here"
    )]
    fn spread(&mut self, top: bool, into: &mut Selection<'a>) -> Option<Option<bool>> {
        self.step()?;
        let name = match self.next? {
            Token::Name(_) => Some(self.name()?),
            _ => None,
        };
        match name {
            Some("on") => {
                self.name()?;
            }
            Some(fragment) => {
                if top {
                    into.spreads.insert(fragment);
                }
                self.directives()?;
                return Some(None);
            }
            None => {}
        }
        self.directives()?;
        if !self.is_at(b'{') {
            return None;
        }
        self.opened(top)
    }

    /// Enters the set that begins here, if there is one.
    #[expect(
        clippy::option_option,
        reason = "the outer says that it cannot be read, as all here"
    )]
    fn opened(&mut self, top: bool) -> Option<Option<bool>> {
        if !self.is_at(b'{') {
            return Some(None);
        }
        self.step()?;
        Some(Some(top))
    }
}
