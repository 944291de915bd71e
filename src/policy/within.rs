//! What a caller may reach at most, whatever the policy allows: how a session is narrowed.

use super::clause::Flow;
use super::{Action, Attempt, Category};

/// The categories and actions that a caller may reach at most.
///
/// A flow outside of it is denied with `category_denied` by `session.narrow`, in `observe` mode
/// too: whoever hands on less than it has means it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Within(Box<[(Category, Option<Action>)]>);

impl Within {
    /// Reads `category` or `category:action` words; the first that is none of them is returned.
    pub fn parse<'w>(words: impl IntoIterator<Item = &'w str>) -> Result<Self, &'w str> {
        let item = |word: &'w str| {
            let (category, action) = match word.split_once(':') {
                Some((category, action)) => {
                    (category, Some(Action::from_word(action).ok_or(word)?))
                }
                None => (word, None),
            };
            Ok((Category::from_word(category).ok_or(word)?, action))
        };
        words
            .into_iter()
            .map(item)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The words it was read from.
    pub fn words(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(category, action)| match action {
            Some(action) => format!("{}:{}", category.as_str(), action.as_str()),
            None => category.as_str().to_owned(),
        })
    }

    /// What both hold.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let both = self.0.iter().filter(|item| other.has(**item));
        let other_way = other.0.iter().filter(|item| self.has(**item));
        let mut items: Vec<_> = both.chain(other_way).copied().collect();
        items.sort_by_key(|(category, action)| (*category as usize, action.map(|it| it as usize)));
        items.dedup();
        Self(items.into())
    }

    fn has(&self, (category, action): (Category, Option<Action>)) -> bool {
        let covers = |(known, any): &(Category, Option<Action>)| {
            *known == category && (any.is_none() || *any == action)
        };
        self.0.iter().any(covers)
    }

    /// Whether a flow stays inside. As for an allow of a tier: what cannot be seen passes where the
    /// tier lets opaque flows pass, and what will be seen waits for that.
    pub(super) fn holds(&self, flow: &Flow<'_>) -> bool {
        self.0.iter().any(|(category, action)| {
            *category == flow.category
                && action.is_none_or(|action| match flow.attempt {
                    Attempt::Connect => flow.opaque || flow.inspected,
                    Attempt::Request { .. } => match flow.action {
                        Some(seen) => seen == action,
                        None => flow.unread(),
                    },
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(words: &[&str]) -> Within {
        Within::parse(words.iter().copied()).unwrap()
    }

    #[test]
    fn words_are_categories_with_or_without_an_action() {
        let words = ["model-api", "package-registry:read"];
        assert_eq!(within(&words).words().collect::<Vec<_>>(), words);
        for wrong in ["models", "model-api:chat", "", ":read"] {
            assert_eq!(Within::parse([wrong]), Err(wrong));
        }
    }

    #[test]
    fn two_narrowings_together_hold_what_both_hold() {
        let one = within(&["model-api", "package-registry:read", "webfetch"]);
        let other = within(&["package-registry", "model-api:call"]);
        let both = one.and(&other);
        let words: Vec<_> = both.words().collect();
        assert_eq!(both, other.and(&one));
        assert_eq!(words, ["model-api:call", "package-registry:read"]);
        assert_eq!(within(&["auth"]).and(&within(&["update"])), within(&[]));
    }
}
