//! The writer's queue: two bounded lanes, interactive before bulk. A full lane refuses at once, so
//! that callers hear "busy" instead of waiting without end.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Which work goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Somebody waits for the answer.
    Interactive,
    /// Imports and notes: they take what room is left.
    Bulk,
}

/// Most commands that wait in a lane. At 10,000 commits a second an interactive command in a full
/// lane still waits less than a second.
pub const LANE_MAX: usize = 8_192;
/// Most commands in one transaction: it bounds how long the first of them waits for the last.
pub const BATCH_MAX: usize = 1_024;
/// Most bulk commands (import chunks) in one transaction, so that people wait behind few of them.
pub const BULK_BATCH_MAX: usize = 4;

/// The queue.
pub struct Queue<T> {
    lanes: Mutex<Lanes<T>>,
    ready: Condvar,
}

struct Lanes<T> {
    interactive: VecDeque<T>,
    bulk: VecDeque<T>,
    closed: bool,
}

/// What the writer finds.
pub enum Taken<T> {
    /// Commands to run in one transaction, in order.
    Batch(Vec<T>),
    /// Nothing came in time.
    Idle,
    /// The queue was closed and is empty.
    Closed,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let lanes = Lanes { interactive: VecDeque::new(), bulk: VecDeque::new(), closed: false };
        Self { lanes: Mutex::new(lanes), ready: Condvar::new() }
    }
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, Lanes<T>> {
        // The lanes are whole at every point where a panic could happen.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a command; gives it back if the lane is full or the queue closed.
    pub fn push(&self, lane: Lane, command: T) -> Result<(), T> {
        let mut lanes = self.lock();
        let closed = lanes.closed;
        let queue = match lane {
            Lane::Interactive => &mut lanes.interactive,
            Lane::Bulk => &mut lanes.bulk,
        };
        if closed || queue.len() >= LANE_MAX {
            return Err(command);
        }
        queue.push_back(command);
        self.ready.notify_one();
        Ok(())
    }

    /// Takes all that wait, up to the limits; waits at most `patience` for the first. No waiting to
    /// fill a batch: the next one fills while this one syncs.
    pub fn take(&self, patience: Duration) -> Taken<T> {
        let mut lanes = self.lock();
        if lanes.interactive.is_empty() && lanes.bulk.is_empty() {
            if lanes.closed {
                return Taken::Closed;
            }
            lanes = self.ready.wait_timeout(lanes, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
        // A few places are kept for the bulk lane, so that it moves even where people never stop.
        let second = lanes.bulk.len().min(BULK_BATCH_MAX);
        let first = lanes.interactive.len().min(BATCH_MAX - second);
        let mut batch: Vec<T> = lanes.interactive.drain(..first).collect();
        batch.extend(lanes.bulk.drain(..second));
        if batch.is_empty() { Taken::Idle } else { Taken::Batch(batch) }
    }

    /// No more commands; those that wait are still taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
    }

    /// How many wait: interactive, bulk.
    pub fn depths(&self) -> (usize, usize) {
        let lanes = self.lock();
        (lanes.interactive.len(), lanes.bulk.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interactive_goes_first_and_full_lanes_refuse() {
        let queue = Queue::default();
        for n in 0..10 {
            queue.push(Lane::Bulk, n).unwrap();
        }
        queue.push(Lane::Interactive, 100).unwrap();
        let Taken::Batch(batch) = queue.take(Duration::ZERO) else { panic!("five commands wait") };
        assert_eq!(batch, [100, 0, 1, 2, 3]);
        for n in 0..LANE_MAX {
            queue.push(Lane::Interactive, n).unwrap();
        }
        assert_eq!(queue.push(Lane::Interactive, 7), Err(7));
        queue.push(Lane::Bulk, 8).unwrap();
        let Taken::Batch(batch) = queue.take(Duration::ZERO) else { panic!("a full lane waits") };
        assert_eq!(batch.len(), BATCH_MAX);
        queue.close();
        assert_eq!(queue.push(Lane::Bulk, 9), Err(9));
        while let Taken::Batch(_) = queue.take(Duration::ZERO) {}
        assert!(matches!(queue.take(Duration::ZERO), Taken::Closed));
    }
}
