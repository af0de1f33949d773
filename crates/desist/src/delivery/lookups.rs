//! What look-ups found, for as long as the manifest lets it be used again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use desist_connector::{Call, Found};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::limits::LOOKUPS_CACHED_MAX;

/// The SHA-256 of a request: a question about somebody is not kept in clear.
pub type Question = [u8; 32];

/// The rows that answers gave. Whoever was not found is not remembered: the next upload can bring them.
pub struct Lookups {
    lasts: Duration,
    known: Mutex<HashMap<Question, (Instant, Vec<Value>)>>,
}

impl Lookups {
    /// A result may be used again for so many seconds.
    pub fn new(seconds: u64) -> Self {
        Self { lasts: Duration::from_secs(seconds), known: Mutex::default() }
    }

    /// What a call asks.
    pub fn question(call: &Call) -> Question {
        let mut digest = Sha256::new();
        for part in [call.method.name().as_bytes(), call.url.as_bytes(), &call.body] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    /// The rows that were found a while ago.
    pub fn get(&self, question: &Question) -> Option<Vec<Value>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(question).filter(|(since, _)| since.elapsed() < self.lasts).map(|(_, rows)| rows.clone())
    }

    /// Keeps rows, and nothing else.
    pub fn put(&self, question: Question, found: &Found) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Found::Rows(rows) = found else {
            known.remove(&question);
            return;
        };
        if self.lasts.is_zero() {
            return;
        }
        if known.len() >= LOOKUPS_CACHED_MAX {
            known.retain(|_, (since, _)| since.elapsed() < self.lasts);
        }
        if known.len() >= LOOKUPS_CACHED_MAX {
            known.clear();
        }
        known.insert(question, (Instant::now(), rows.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_are_kept_not_for_long_and_not_too_many() {
        let rows = Found::Rows(vec![Value::from("a")]);
        let lookups = Lookups::new(600);
        lookups.put([1; 32], &rows);
        assert_eq!(lookups.get(&[1; 32]), Some(vec![Value::from("a")]));
        lookups.put([1; 32], &Found::Absent);
        assert_eq!(lookups.get(&[1; 32]), None);
        for number in 0..=LOOKUPS_CACHED_MAX {
            let mut question = [0; 32];
            question[..8].copy_from_slice(&(number as u64).to_be_bytes());
            lookups.put(question, &rows);
        }
        assert_eq!(lookups.known.lock().unwrap().len(), 1);
        let short = Lookups::new(0);
        short.put([1; 32], &rows);
        assert_eq!(short.get(&[1; 32]), None);
    }
}
