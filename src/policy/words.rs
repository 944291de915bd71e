//! Words that include other words: `push` includes `create` and `delete`.
//!
//! A rule that names a word applies to each word below it. The word of a request before its body is
//! read (`graphql`, `lfs-batch`, `push`) includes each word that the body may show, so that one
//! word applies before and after.

use std::collections::BTreeMap;

/// The words of GraphQL requests whose mutations are not listed one by one.
const UNTOLD: [&str; 2] = ["graphql-mutation", "graphql-unreadable"];
/// The prefix of the word of a mutation.
const MUTATION: &str = "mutation:";

/// The inclusions among the words of a service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Words {
    /// A word and a word directly below it. The lower one may end in `*`: any rest.
    pairs: Vec<(Box<str>, Box<str>)>,
}

impl Words {
    pub(super) fn new(includes: &BTreeMap<String, Vec<String>>) -> Self {
        let pairs = includes.iter().flat_map(|(word, below)| {
            let pair = |below: &String| (word.as_str().into(), below.as_str().into());
            below.iter().map(pair)
        });
        Self {
            pairs: pairs.collect(),
        }
    }

    /// Adds the pairs of another service.
    pub(super) fn add(&mut self, other: &Self) {
        self.pairs.extend_from_slice(&other.pairs);
    }

    /// Returns the words in the pairs, in their order; a word may occur more than once.
    pub(super) fn listed(&self) -> impl Iterator<Item = &str> {
        self.pairs
            .iter()
            .flat_map(|(word, below)| [&**word, &**below])
    }

    /// Returns the words directly below a word.
    #[cfg(test)]
    pub(super) fn below<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a str> {
        let pairs = self.pairs.iter().filter(move |(above, _)| **above == *word);
        pairs.map(|(_, below)| &**below)
    }

    /// Returns a word, then each word that includes it, each once: `delete`, `push`.
    pub fn above<'a>(&'a self, word: &'a str) -> Vec<&'a str> {
        let mut found = vec![word];
        let mut next = 0;
        while let Some(word) = found.get(next).copied() {
            for (above, below) in &self.pairs {
                if names(below, word) && !found.contains(&&**above) {
                    found.push(above);
                }
            }
            next += 1;
        }
        found
    }

    /// Like [`Words::above`], for a GraphQL request with undetermined mutations: also each word
    /// that includes a mutation.
    pub fn possible<'a>(&'a self, word: &'a str) -> Vec<&'a str> {
        let mut found = self.above(word);
        if UNTOLD.contains(&word) {
            let mutations = self.pairs.iter().filter(|(_, it)| it.starts_with(MUTATION));
            for word in mutations.flat_map(|(_, mutation)| self.above(mutation)) {
                if !found.contains(&word) {
                    found.push(word);
                }
            }
        }
        found
    }

    /// Whether a word includes another, or equals it.
    pub fn includes(&self, word: &str, below: &str) -> bool {
        self.above(below).contains(&word)
    }
}

/// Whether the lower word of a pair matches this word.
fn names(listed: &str, word: &str) -> bool {
    match listed.strip_suffix('*') {
        Some(front) => word.starts_with(front),
        None => listed == word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        let of = |word: &str, below: &[&str]| {
            let below = below.iter().map(|word| (*word).to_owned()).collect();
            (word.to_owned(), below)
        };
        Words::new(&BTreeMap::from([
            of("push", &["create", "delete", "commit"]),
            of("commit", &["mutation:createRef"]),
            of("graphql", &["graphql-query", "graphql-mutation"]),
            of("graphql-mutation", &["mutation:*"]),
        ]))
    }

    #[test]
    fn a_word_includes_each_word_below_it() {
        let words = words();
        assert_eq!(words.above("delete"), ["delete", "push"]);
        assert_eq!(words.above("fetch"), ["fetch"]);
        let found = words.above("mutation:createRef");
        assert_eq!(
            found,
            [
                "mutation:createRef",
                "commit",
                "graphql-mutation",
                "push",
                "graphql"
            ]
        );
        assert!(words.includes("graphql", "mutation:addComment"));
        assert!(words.includes("push", "push"));
        assert!(!words.includes("push", "mutation:addComment"));
        assert!(!words.includes("delete", "push"));
    }

    #[test]
    fn a_mutation_that_cannot_be_told_may_be_any() {
        let words = words();
        let possible = words.possible("graphql-unreadable");
        assert!(possible.contains(&"commit") && possible.contains(&"push"));
        assert!(!words.above("graphql-unreadable").contains(&"commit"));
        assert_eq!(words.possible("mutation:x"), words.above("mutation:x"));
    }

    #[test]
    fn words_that_include_each_other_end() {
        let circle = BTreeMap::from([
            ("a".to_owned(), vec!["b".to_owned()]),
            ("b".to_owned(), vec!["a".to_owned()]),
        ]);
        assert_eq!(Words::new(&circle).above("a"), ["a", "b"]);
    }
}
