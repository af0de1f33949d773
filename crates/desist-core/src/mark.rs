//! Marks and lines: what was said, about which purposes, and which word wins.
//!
//! A line keeps, per purpose, the winning mark of each of three classes. Joining marks is a maximum
//! over a total order, so the order in which acts and links arrive never changes a line's decision.

use serde::{Deserialize, Serialize};

use crate::purpose::PurposeSet;

/// Dense row number of a subject, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubjectNo(pub u64);

/// Dense row number of an identifier, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdentifierNo(pub u64);

/// Whose word a mark is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The consumer's own act.
    Consumer,
    /// The business's word (import, operator), or that of several API profiles: it can only deny.
    Business,
    /// An opt-out that an API client made on this profile: the only kind it can also end.
    Api(SubjectNo),
}

/// One act as it counts on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark {
    /// Deny, or allow (an opt-in).
    pub deny: bool,
    /// When the consumer acted, in Unix seconds.
    pub at: i64,
    /// Whether the server took the time itself; a caller's time can only tip a tie towards deny.
    pub server_timed: bool,
    /// The entry that recorded it.
    pub seq: u64,
}

impl Mark {
    /// The total order of acts: later wins; within a second a deny with a caller's time wins over
    /// all others, and among server-timed acts the higher `seq`. Of one entry, deny wins.
    fn rank(self) -> (i64, bool, u64, bool) {
        (self.at, self.deny && !self.server_timed, self.seq, self.deny)
    }
}

/// A mark with the purposes it wins within its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Whose word it is.
    pub class: Class,
    /// The act.
    pub mark: Mark,
    /// The purposes for which this is the winning mark of its class; never empty.
    pub purposes: PurposeSet,
}

/// All that was said on one subject or one identifier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    held: Vec<Held>,
}

impl Line {
    /// The marks of the line, in canonical order.
    pub fn marks(&self) -> &[Held] {
        &self.held
    }

    /// Whether nothing was ever said here.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Adds an act. Returns whether the line changed.
    pub fn join(&mut self, class: Class, mark: Mark, purposes: PurposeSet) -> bool {
        let before = self.held.clone();
        self.insert(class, mark, purposes);
        self.held.retain(|held| !held.purposes.is_empty());
        self.merge_equal();
        self.held != before
    }

    fn insert(&mut self, class: Class, mark: Mark, mut purposes: PurposeSet) {
        debug_assert!(mark.deny || class == Class::Consumer, "only consumers opt in");
        let mut collapsed = Vec::new();
        for held in &mut self.held {
            let both = held.purposes.intersection(purposes);
            if both.is_empty() {
                continue;
            }
            match (held.class, class) {
                // Two profiles' words on one line: neither may end the other's, so they become the
                // business's word, which no API client can end.
                (Class::Api(there), Class::Api(here)) if there != here => {
                    held.purposes = held.purposes.without(both);
                    purposes = purposes.without(both);
                    collapsed.push((held.mark, both));
                    collapsed.push((mark, both));
                }
                // The business's word stands for good: a profile's earlier one adds nothing to it.
                (Class::Business, Class::Api(_)) if mark.rank() <= held.mark.rank() => purposes = purposes.without(both),
                (there, here) if there != here => {}
                _ if mark.rank() > held.mark.rank() => held.purposes = held.purposes.without(both),
                _ => purposes = purposes.without(both),
            }
        }
        if !purposes.is_empty() {
            self.held.push(Held { class, mark, purposes });
        }
        for (mark, both) in collapsed {
            self.insert(Class::Business, mark, both);
        }
    }

    fn merge_equal(&mut self) {
        self.held.sort_unstable();
        self.held.dedup_by(|later, kept| {
            let same = later.class == kept.class && later.mark == kept.mark;
            if same {
                kept.purposes = kept.purposes.union(later.purposes);
            }
            same
        });
    }

    /// Removes the opt-outs that an API client made on `origin`. Returns whether the line changed.
    pub fn end_api(&mut self, origin: SubjectNo, purposes: PurposeSet) -> bool {
        let before = self.held.clone();
        for held in &mut self.held {
            if held.class == Class::Api(origin) {
                held.purposes = held.purposes.without(purposes);
            }
        }
        self.held.retain(|held| !held.purposes.is_empty());
        self.held != before
    }

    /// Purposes for which the winning word is an opt-in.
    pub fn opted_in(&self) -> PurposeSet {
        let mut allowed = PurposeSet::EMPTY;
        for yes in self.held.iter().filter(|held| !held.mark.deny) {
            let beaten = self
                .held
                .iter()
                .filter(|no| no.mark.deny && no.mark.rank() > yes.mark.rank())
                .fold(PurposeSet::EMPTY, |set, no| set.union(no.purposes));
            allowed = allowed.union(yes.purposes.without(beaten));
        }
        allowed
    }

    /// Purposes for which the winning word is an opt-out.
    pub fn denied(&self) -> PurposeSet {
        self.held
            .iter()
            .filter(|held| held.mark.deny)
            .fold(PurposeSet::EMPTY, |set, held| set.union(held.purposes))
            .without(self.opted_in())
    }

    /// The marks that deny some of `purposes` now, each cut to those purposes.
    pub fn denials(&self, purposes: PurposeSet) -> Vec<Held> {
        let denied = self.denied().intersection(purposes);
        let answered = |no: &Held| {
            let later = self.held.iter().filter(|yes| !yes.mark.deny && yes.mark.rank() > no.mark.rank());
            later.fold(PurposeSet::EMPTY, |set, yes| set.union(yes.purposes))
        };
        self.held
            .iter()
            .filter(|held| held.mark.deny)
            .map(|held| Held { purposes: held.purposes.intersection(denied).without(answered(held)), ..*held })
            .filter(|held| !held.purposes.is_empty())
            .collect()
    }

    /// The line without the words that an API client could end, but for those of `class` itself.
    #[must_use]
    pub fn without_api_but(&self, class: Class) -> Self {
        let stays = |held: &&Held| held.class == class || !matches!(held.class, Class::Api(_));
        Self { held: self.held.iter().filter(stays).copied().collect() }
    }

    /// When the winning opt-out of any of `purposes` was made, in Unix seconds.
    pub fn denied_since(&self, purposes: PurposeSet) -> Option<i64> {
        self.denials(purposes).iter().map(|held| held.mark.at).max()
    }

    /// The line as readable compact JSON, the form in which stores keep it:
    /// `[[purposes, "consumer"|"business"|api subject, "deny"|"allow", at, server_timed 0|1, seq]...]`.
    pub fn to_json(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::from("[");
        for (i, Held { class, mark, purposes }) in self.held.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let word = if mark.deny { "deny" } else { "allow" };
            let class = match class {
                Class::Consumer => "\"consumer\"".to_owned(),
                Class::Business => "\"business\"".to_owned(),
                Class::Api(subject) => subject.0.to_string(),
            };
            let (bits, at, timed, seq) = (purposes.0, mark.at, u8::from(mark.server_timed), mark.seq);
            write!(text, "{comma}[{bits},{class},\"{word}\",{at},{timed},{seq}]").expect("writing to a String cannot fail");
        }
        text.push(']');
        text
    }

    /// Reads [`Line::to_json`] back; `None` if it is anything else.
    pub fn from_json(text: &str) -> Option<Self> {
        if text == "[]" {
            return Some(Self::default());
        }
        let rows: Vec<(u64, serde_json::Value, String, i64, u8, u64)> = serde_json::from_str(text).ok()?;
        let mut line = Self::default();
        for (purposes, class, word, at, timed, seq) in rows {
            let class = match &class {
                serde_json::Value::String(name) if name == "consumer" => Class::Consumer,
                serde_json::Value::String(name) if name == "business" => Class::Business,
                serde_json::Value::Number(subject) => Class::Api(SubjectNo(subject.as_u64()?)),
                _ => return None,
            };
            let deny = match word.as_str() {
                "deny" => true,
                "allow" => false,
                _ => return None,
            };
            let mark = Mark { deny, at, server_timed: timed == 1, seq };
            line.held.push(Held { class, mark, purposes: PurposeSet(purposes) });
        }
        (line.to_json() == text).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark() -> impl Strategy<Value = (Class, Mark, PurposeSet)> {
        (0..4_u64, any::<bool>(), 0..4_i64, any::<bool>(), 1..20_u64, 1..8_u64).prop_map(|(class, deny, at, timed, seq, bits)| {
            let class = match class {
                0 | 1 => Class::Consumer,
                2 => Class::Business,
                _ => Class::Api(SubjectNo(seq % 2 + 1)),
            };
            let deny = deny || class != Class::Consumer;
            (class, Mark { deny, at, server_timed: timed || !deny, seq }, PurposeSet(bits))
        })
    }

    proptest! {
        #[test]
        fn the_order_of_joining_never_changes_the_decision(marks in prop::collection::vec(mark(), 0..10), swap in any::<prop::sample::Index>()) {
            let mut one = Line::default();
            for (class, mark, purposes) in &marks {
                one.join(*class, *mark, *purposes);
            }
            let mut other = Line::default();
            let mut shuffled = marks.clone();
            if !shuffled.is_empty() {
                let at = swap.index(shuffled.len());
                shuffled.rotate_left(at);
                shuffled.reverse();
            }
            for (class, mark, purposes) in &shuffled {
                other.join(*class, *mark, *purposes);
            }
            prop_assert_eq!(one.denied(), other.denied());
            prop_assert_eq!(one.opted_in(), other.opted_in());
        }

        #[test]
        fn a_line_reads_back_as_it_was_written(marks in prop::collection::vec(mark(), 0..10)) {
            let mut line = Line::default();
            for (class, mark, purposes) in marks {
                line.join(class, mark, purposes);
                prop_assert!(!line.join(class, mark, purposes), "joining twice changes nothing");
            }
            prop_assert_eq!(Line::from_json(&line.to_json()), Some(line));
        }
    }

    #[test]
    fn the_latest_word_wins_and_a_tie_denies() {
        let deny = |at, server_timed, seq| Mark { deny: true, at, server_timed, seq };
        let allow = |at, seq| Mark { deny: false, at, server_timed: true, seq };
        let check = |marks: &[(Class, Mark)], denied: bool| {
            let mut line = Line::default();
            for (class, mark) in marks {
                line.join(*class, *mark, PurposeSet::SALE);
            }
            assert_eq!(line.denied().contains(PurposeSet::SALE), denied, "{marks:?}");
        };
        check(&[(Class::Consumer, deny(5, true, 1)), (Class::Consumer, allow(6, 2))], false);
        check(&[(Class::Consumer, deny(5, true, 1)), (Class::Consumer, allow(5, 2))], false);
        check(&[(Class::Consumer, deny(5, false, 1)), (Class::Consumer, allow(5, 2))], true);
        check(&[(Class::Consumer, allow(6, 2)), (Class::Consumer, deny(5, false, 3))], false);
        check(&[(Class::Consumer, allow(6, 2)), (Class::Business, deny(7, true, 3))], true);
        check(&[(Class::Business, deny(5, true, 1)), (Class::Consumer, allow(6, 2))], false);
    }

    #[test]
    fn what_the_consumer_answered_is_not_among_the_denials() {
        let deny = |at, seq| Mark { deny: true, at, server_timed: true, seq };
        let mut line = Line::default();
        line.join(Class::Business, deny(1, 1), PurposeSet::GPC);
        line.join(Class::Consumer, Mark { deny: false, ..deny(2, 2) }, PurposeSet::SALE);
        line.join(Class::Api(SubjectNo(1)), deny(3, 3), PurposeSet::SALE);
        let classes: Vec<_> = line.denials(PurposeSet::SALE).iter().map(|held| held.class).collect();
        assert_eq!(classes, [Class::Api(SubjectNo(1))]);
        assert_eq!(line.denied(), PurposeSet::GPC);
        assert_eq!(line.without_api_but(Class::Consumer).denied(), PurposeSet::GPC.without(PurposeSet::SALE));
    }
}
