//! Purposes: what a choice is about. A purpose is one bit of 64.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A set of purposes, one bit each.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PurposeSet(pub u64);

impl PurposeSet {
    /// No purpose.
    pub const EMPTY: Self = Self(0);
    /// Sale of personal information (Civ. Code 1798.140(ad)).
    pub const SALE: Self = Self(1);
    /// Sharing for cross-context behavioural advertising (Civ. Code 1798.140(ah)).
    pub const SHARING: Self = Self(1 << 1);
    /// Targeted advertising, the word of the other states' laws.
    pub const TARGETED_ADVERTISING: Self = Self(1 << 2);
    /// Profiling with legal or similarly significant effects.
    pub const PROFILING: Self = Self(1 << 3);
    /// Use of sensitive information beyond what is permitted (Civ. Code 1798.121).
    pub const LIMIT_SENSITIVE: Self = Self(1 << 4);
    /// Automated decision-making (11 CCR 7200).
    pub const ADMT: Self = Self(1 << 5);
    /// What a Global Privacy Control signal denies, and all that it denies (11 CCR 7025).
    pub const GPC: Self = Self(Self::SALE.0 | Self::SHARING.0 | Self::TARGETED_ADVERTISING.0);
    /// What stays closed for a known minor without an opt-in (Civ. Code 1798.120(c)).
    pub const MINOR: Self = Self::GPC;
    /// What an opt-out that names no purposes covers: the single option for everything that
    /// 11 CCR 7026(h) asks for.
    pub const OPT_OUT_DEFAULT: Self = Self::GPC;

    /// Members of either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// Members of both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    /// Members of `self` that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    /// Whether every member of `other` is in `self`.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    /// Whether the sets share a member.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
    /// Whether there is no member.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The members, each as a set of one, lowest bit first.
    pub fn iter(self) -> impl Iterator<Item = Self> {
        (0..64).map(|bit| Self(1 << bit)).filter(move |one| self.contains(*one))
    }
}

impl std::fmt::Debug for PurposeSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PurposeSet({:#x})", self.0)
    }
}

/// What holds for people who never said anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    /// Allowed until somebody opts out.
    OptOut,
    /// Denied until somebody opts in.
    OptIn,
}

/// The purposes built into desist, by bit.
pub const BUILT_IN: [(&str, PurposeSet); 6] = [
    ("sale", PurposeSet::SALE),
    ("sharing", PurposeSet::SHARING),
    ("targeted_advertising", PurposeSet::TARGETED_ADVERTISING),
    ("profiling", PurposeSet::PROFILING),
    ("limit_sensitive", PurposeSet::LIMIT_SENSITIVE),
    ("admt", PurposeSet::ADMT),
];

/// Bits below this one belong to desist; a business's own purposes start here, so that a built-in
/// purpose of a later version never meets a declared one.
pub const FIRST_DECLARED_BIT: u32 = 16;

/// The purposes one business knows, by name. Bits are given once and never reused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purposes {
    by_name: BTreeMap<String, (PurposeSet, Model)>,
    opt_in: PurposeSet,
}

impl Default for Purposes {
    fn default() -> Self {
        Self {
            by_name: BUILT_IN.iter().map(|(name, bit)| ((*name).to_owned(), (*bit, Model::OptOut))).collect(),
            opt_in: PurposeSet::EMPTY,
        }
    }
}

impl Purposes {
    /// Adds a declared purpose under the bit that the log gave it.
    pub fn insert(&mut self, name: &str, bit: u32, model: Model) {
        let set = PurposeSet(1 << bit);
        self.by_name.insert(name.to_owned(), (set, model));
        if model == Model::OptIn {
            self.opt_in = self.opt_in.union(set);
        }
    }
    /// The purpose of that name, as a set of one.
    pub fn get(&self, name: &str) -> Option<PurposeSet> {
        self.by_name.get(name).map(|(set, _)| *set)
    }
    /// The purposes that are denied without an opt-in.
    pub fn opt_in(&self) -> PurposeSet {
        self.opt_in
    }
    /// Every name, with its set of one and its model, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, PurposeSet, Model)> {
        self.by_name.iter().map(|(name, (set, model))| (name.as_str(), *set, *model))
    }
    /// The names of the members of `set`, in order of bits.
    pub fn names(&self, set: PurposeSet) -> Vec<&str> {
        let mut names: Vec<_> = self.iter().filter(|(_, one, _)| set.intersects(*one)).collect();
        names.sort_by_key(|(_, one, _)| one.0);
        names.into_iter().map(|(name, ..)| name).collect()
    }
}
