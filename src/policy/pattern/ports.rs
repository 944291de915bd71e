//! Sets of ports, as intervals.

use std::fmt;

/// A set of ports: sorted intervals that neither overlap nor touch.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(in crate::policy) struct PortSet(Vec<(u16, u16)>);

impl PortSet {
    /// Returns the set of all ports.
    pub(in crate::policy) fn all() -> Self {
        Self(vec![(0, u16::MAX)])
    }

    /// Returns the set of some ports, in any order.
    pub(in crate::policy) fn of(ports: impl IntoIterator<Item = u16>) -> Self {
        let mut single: Vec<(u16, u16)> = ports.into_iter().map(|port| (port, port)).collect();
        single.sort_unstable();
        Self(joined(single))
    }

    /// Whether a port is in the set.
    pub(in crate::policy) fn contains(&self, port: u16) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= port);
        let before = after.checked_sub(1).and_then(|at| self.0.get(at));
        before.is_some_and(|(_, last)| port <= *last)
    }

    /// Returns each port of the set.
    pub(in crate::policy) fn members(&self) -> impl Iterator<Item = u16> {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// Whether no port is in the set.
    pub(in crate::policy) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the ports that are not in the set.
    #[must_use]
    pub(in crate::policy) fn complement(&self) -> Self {
        let mut gaps = Vec::with_capacity(self.0.len() + 1);
        let mut next = Some(0);
        for (first, last) in &self.0 {
            if let (Some(start), Some(end)) = (next, first.checked_sub(1))
                && start <= end
            {
                gaps.push((start, end));
            }
            next = last.checked_add(1);
        }
        gaps.extend(next.map(|start| (start, u16::MAX)));
        Self(gaps)
    }

    /// Returns the ports of either set.
    #[must_use]
    pub(in crate::policy) fn union(&self, other: &Self) -> Self {
        let mut both = [self.0.as_slice(), other.0.as_slice()].concat();
        both.sort_unstable();
        Self(joined(both))
    }

    /// Returns the ports of both sets.
    #[must_use]
    pub(in crate::policy) fn intersection(&self, other: &Self) -> Self {
        self.complement().union(&other.complement()).complement()
    }

    /// Returns the ports of this set that are not in the other.
    #[must_use]
    pub(in crate::policy) fn difference(&self, other: &Self) -> Self {
        self.intersection(&other.complement())
    }

    /// Whether each port of `other` is in this set.
    #[cfg_attr(not(test), expect(dead_code, reason = "for differences of policies"))]
    pub(in crate::policy) fn covers(&self, other: &Self) -> bool {
        other.difference(self).is_empty()
    }

    /// Returns a port of the set: 443 or 80 if possible, otherwise the lowest except 0.
    pub(in crate::policy) fn witness(&self) -> Option<u16> {
        let usual = [443, 80].into_iter().find(|port| self.contains(*port));
        let lowest = || {
            self.difference(&Self::of([0]))
                .0
                .first()
                .map(|(first, _)| *first)
        };
        usual
            .or_else(lowest)
            .or_else(|| self.0.first().map(|(first, _)| *first))
    }
}

/// `443`, `80, 443`, `1-79, 81-65535`, `all`. Port 0 is left out, because no flow has it.
impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.contains(1) && self.0.first().is_some_and(|(_, last)| *last == u16::MAX) {
            return f.write_str("all");
        }
        let shown = self.0.iter().filter(|(_, last)| *last > 0);
        for (at, (first, last)) in shown.enumerate() {
            let first = (*first).max(1);
            let gap = if at == 0 { "" } else { ", " };
            if first == *last {
                write!(f, "{gap}{first}")?;
            } else {
                write!(f, "{gap}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

/// Joins intervals, sorted by their beginning, that overlap or touch.
fn joined(sorted: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    let mut joined: Vec<(u16, u16)> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined
}
