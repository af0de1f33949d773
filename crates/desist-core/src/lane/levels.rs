//! Targets that are not at the floor of their lane, packed: a business is told of people whom most of its systems never heard of.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Level, Target};

/// Targets of one page: small enough to be written again for one of them, large enough that its row in a store costs little beside it.
const PAGE: u64 = 512;
const BYTES: usize = PAGE as usize / 2;

/// What is known of a target that is not at the floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Observed {
    /// The destination said that it does not have the target.
    Absent,
    /// It got this far.
    At(Level),
}

impl Observed {
    const ALL: [Self; 6] = [
        Self::Absent,
        Self::At(Level::Queued),
        Self::At(Level::Sent),
        Self::At(Level::Accepted),
        Self::At(Level::Applied),
        Self::At(Level::Verified),
    ];

    fn code(self) -> u8 {
        match self {
            Self::Absent => 1,
            Self::At(level) => level as u8 + 2,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }
}

/// Half a byte for each target of a page: what is known of it, or that it is at the floor. As text, hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct LevelPage(Box<[u8; BYTES]>);

/// What is known of the targets that are not at the floor: about half a byte each where they are many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Levels {
    pages: BTreeMap<u64, LevelPage>,
}

/// The page and the place in it.
fn place(target: Target) -> (u64, usize) {
    // Numbers of parties are doubled, with what they are in the last bit: those of one kind are together in a page.
    let index = target.0.rotate_right(1);
    (index / PAGE, (index % PAGE) as usize)
}

fn half(at: usize) -> u32 {
    if at.is_multiple_of(2) { 0 } else { 4 }
}

impl Levels {
    /// What is known of the target; none: it is at the floor.
    pub fn get(&self, target: Target) -> Option<Observed> {
        let (page, at) = place(target);
        Observed::from_code(self.pages.get(&page)?.get(at))
    }

    /// Notes what is known (`None`: it is at the floor). Which page changed, if any.
    pub fn set(&mut self, target: Target, observed: Option<Observed>) -> Option<u64> {
        let ((number, at), code) = (place(target), observed.map_or(0, Observed::code));
        if self.pages.get(&number).map_or(0, |page| page.get(at)) == code {
            return None;
        }
        let page = self.pages.entry(number).or_insert_with(|| LevelPage(Box::new([0; BYTES])));
        let half = half(at);
        page.0[at / 2] = page.0[at / 2] & !(0x0f << half) | code << half;
        if page.0.iter().all(|byte| *byte == 0) {
            self.pages.remove(&number);
        }
        Some(number)
    }

    /// A page; none: all of its targets are at the floor.
    pub fn page(&self, number: u64) -> Option<&LevelPage> {
        self.pages.get(&number)
    }

    /// Replaces a page, as a store has it.
    pub fn put(&mut self, number: u64, page: Option<LevelPage>) {
        match page {
            Some(page) => drop(self.pages.insert(number, page)),
            None => drop(self.pages.remove(&number)),
        }
    }

    /// Puts everybody at the floor: the pages that there were.
    pub fn clear(&mut self) -> impl Iterator<Item = u64> + use<> {
        std::mem::take(&mut self.pages).into_keys()
    }

    /// How many are known so.
    pub fn count(&self, observed: Observed) -> u64 {
        let (low, high) = (observed.code(), observed.code() << 4);
        let of = |byte: &u8| u64::from(byte & 0x0f == low) + u64::from(byte & 0xf0 == high);
        self.pages.values().flat_map(|page| page.0.iter()).map(of).sum()
    }
}

impl LevelPage {
    fn get(&self, at: usize) -> u8 {
        self.0[at / 2] >> half(at) & 0x0f
    }
}

impl std::fmt::Debug for LevelPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = (0..PAGE as usize).filter_map(|at| Some((at, Observed::from_code(self.get(at))?)));
        f.debug_map().entries(known).finish()
    }
}

impl Serialize for LevelPage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digit = |half: u8| char::from_digit(u32::from(half), 16).expect("below 16");
        let text: String = self.0.iter().flat_map(|byte| [digit(byte & 0x0f), digit(byte >> 4)]).collect();
        serializer.serialize_str(text.trim_end_matches('0'))
    }
}

impl<'de> Deserialize<'de> for LevelPage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let codes = text.bytes().map(|digit| match digit {
            b'0' => Some(0),
            _ => {
                char::from(digit).to_digit(16).and_then(|code| u8::try_from(code).ok()).filter(|code| Observed::from_code(*code).is_some())
            }
        });
        let mut page = Self(Box::new([0; BYTES]));
        for (at, code) in codes.enumerate() {
            let code = code.filter(|_| at < PAGE as usize).ok_or_else(|| D::Error::custom("this is no page of levels"))?;
            page.0[at / 2] |= code << half(at);
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn levels_are_a_map(changes in proptest::collection::vec((0..3_000_u64, 0..7_usize), 0..400)) {
            let (mut levels, mut model) = (Levels::default(), BTreeMap::new());
            let mut written = Levels::default();
            for (target, observed) in changes {
                let (target, observed) = (Target(target), observed.checked_sub(1).map(|at| Observed::ALL[at]));
                let before = match observed {
                    Some(observed) => model.insert(target, observed),
                    None => model.remove(&target),
                };
                let changed = levels.set(target, observed);
                prop_assert_eq!(changed.is_some(), before != observed);
                if let Some(number) = changed {
                    let text = serde_json::to_string(&levels.page(number)).unwrap();
                    written.put(number, serde_json::from_str(&text).unwrap());
                }
            }
            for target in (0..3_000).map(Target) {
                prop_assert_eq!(levels.get(target), model.get(&target).copied());
            }
            for observed in Observed::ALL {
                prop_assert_eq!(levels.count(observed), model.values().filter(|one| **one == observed).count() as u64);
            }
            prop_assert_eq!(&written, &levels);
            let text = serde_json::to_string(&levels).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Levels>(&text).unwrap(), &levels);
            levels.clear().for_each(|number| written.put(number, None));
            prop_assert_eq!(levels, written);
        }

        #[test]
        fn any_text_is_a_page_or_an_error(text in "[0-9a-f \\PC]{0,600}") {
            if let Ok(page) = serde_json::from_str::<LevelPage>(&serde_json::to_string(&text).unwrap()) {
                let again = serde_json::to_string(&page).unwrap();
                prop_assert_eq!(again.trim_matches('"'), text.trim_end_matches('0'));
            }
        }
    }

    #[test]
    fn a_million_who_are_absent_take_half_a_byte_each() {
        let mut levels = Levels::default();
        for party in 0..1_000_000 {
            levels.set(Target(party * 2 + 1), Some(Observed::Absent));
        }
        assert_eq!((levels.pages.len(), levels.count(Observed::Absent)), (1_000_000_usize.div_ceil(PAGE as usize), 1_000_000));
        let text: usize = levels.pages.values().map(|page| serde_json::to_string(page).unwrap().len()).sum();
        assert!(text < 1_010_000, "{text}");
    }
}
