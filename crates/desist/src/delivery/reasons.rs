//! Reasons of destinations as numbers, since a lane keeps a number for each target that failed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::limits::REASONS_MAX;

/// Numbers below this are HTTP statuses.
const FIRST: u16 = 1000;

/// The reasons that were seen, by number.
#[derive(Default)]
pub struct Reasons(Mutex<BTreeMap<u16, String>>);

impl Reasons {
    /// The number of a reason: the status itself for `status.404`, else one that follows from the text alone, so that it is the same after
    /// a restart.
    pub fn code(&self, reason: &str) -> u16 {
        let status = reason.strip_prefix("status.").and_then(|status| status.parse().ok()).filter(|status| *status < FIRST);
        let code = status.unwrap_or_else(|| {
            let digest = Sha256::digest(reason);
            let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
            FIRST + (number % (u32::from(u16::MAX) - u32::from(FIRST) + 1)) as u16
        });
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < REASONS_MAX {
            known.entry(code).or_insert_with(|| reason.to_owned());
        }
        code
    }

    /// The text, if it was seen since the start.
    pub fn text(&self, code: u16) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&code).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_from_the_text_and_the_table_is_bounded() {
        let (reasons, others) = (Reasons::default(), Reasons::default());
        assert_eq!((reasons.code("status.404"), reasons.text(404).as_deref()), (404, Some("status.404")));
        assert!(reasons.code("status.40400") >= FIRST);
        let code = reasons.code("INVALID_FIELD");
        assert_eq!((code >= FIRST, others.code("INVALID_FIELD"), reasons.text(code).as_deref()), (true, code, Some("INVALID_FIELD")));
        for number in 0..2 * REASONS_MAX {
            reasons.code(&number.to_string());
        }
        assert_eq!(reasons.0.lock().unwrap().len(), REASONS_MAX);
    }
}
