//! The definitions of a GraphQL document, and what is selected at the top of each.
//!
//! Not the whole grammar: inside of arguments only brackets are matched. Where a definition begins
//! and what kind it is, is read strictly.

use std::collections::{BTreeMap, BTreeSet};

use super::lexer::{Lexer, Token};

/// Levels to which selections or values may be nested.
const MAX_DEPTH: usize = 200;
/// Definitions of a document.
const MAX_DEFINITIONS: usize = 1000;
/// Bytes of the name of a field.
const MAX_FIELD_SIZE: usize = 100;

/// What an operation is.
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

/// What is selected at the top, through inline fragments.
#[derive(Default)]
struct Selection<'a> {
    /// Names of fields, not their aliases.
    fields: BTreeSet<&'a str>,
    /// Names of fragments.
    spreads: BTreeSet<&'a str>,
}

impl<'a> Document<'a> {
    /// Reads a document; `None` where it cannot be read, has no operation, or defines types.
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

    /// Whether it has an operation of a kind.
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.operations.iter().any(|(found, _)| *found == kind)
    }

    /// The fields that its mutations select, through fragments; `None` where they cannot all be
    /// told. Fields of the language itself (`__typename`) change nothing.
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

/// Reads token by token, with one in hand. `None` from its functions: it cannot be read.
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

    /// Passes over arguments or variables in parentheses, where there are some.
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

    /// Passes over `@name(…)`, any number of them.
    fn directives(&mut self) -> Option<()> {
        while self.is_at(b'@') {
            self.step()?;
            self.name()?;
            self.brackets()?;
        }
        Some(())
    }

    /// Reads a selection set with all that is in it.
    fn selection(&mut self) -> Option<Selection<'a>> {
        let mut selection = Selection::default();
        if !self.is_at(b'{') {
            return None;
        }
        self.step()?;
        // For each set that is open, whether it is at the top.
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

    /// Reads one field or fragment, up to the set that it opens: whether that is at the top.
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

    /// Enters the set that begins here, where one does.
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
