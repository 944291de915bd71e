//! The limits of a session: the most that it may use of what the policy allows.

use super::action::Action;
use super::category::Category;

/// The categories and actions that a session may reach.
///
/// A flow outside of them is denied with `category_denied` by `session.narrow`, in `observe` mode
/// too: narrowing is always enforced.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Within(Box<[(Category, Option<Action>)]>);

impl Within {
    /// Parses words `category` or `category:action`; the error is the first invalid word.
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

    /// Returns the words from which it was parsed.
    pub fn words(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(category, action)| match action {
            Some(action) => format!("{}:{}", category.as_str(), action.as_str()),
            None => category.as_str().to_owned(),
        })
    }

    /// The intersection of two limits.
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

    /// Whether a flow of a category, with an action that `fits`, may be reached.
    pub(super) fn allows(&self, category: Category, fits: impl Fn(Action) -> bool) -> bool {
        let mut items = self.0.iter();
        items.any(|(known, action)| *known == category && action.is_none_or(&fits))
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
