//! What all directory streams together may hold in memory beside the documents themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A sum of bytes with an upper bound, shared by all shards.
#[derive(Debug, Clone)]
pub struct Budget {
    spent: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// Bytes that were granted; given back on drop.
#[derive(Debug)]
pub struct Lease {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// Nothing spent yet.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            spent: Arc::default(),
            bytes_max,
        }
    }

    /// `bytes` of it, if as much is left.
    pub fn take(&self, bytes: usize) -> Option<Lease> {
        let taken = self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spent| {
            spent.checked_add(bytes).filter(|sum| *sum <= self.bytes_max)
        });
        taken.ok().map(|_| Lease {
            budget: self.clone(),
            bytes,
        })
    }

    /// What is out now.
    pub fn spent(&self) -> usize {
        self.spent.load(Ordering::Relaxed)
    }
}

impl Lease {
    /// Takes so many bytes more. `false`: they are not left; the lease stays as it is.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let Some(mut more) = self.budget.take(bytes) else {
            return false;
        };
        self.bytes += std::mem::take(&mut more.bytes);
        true
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.spent.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_can_be_taken_again_and_no_more() {
        let budget = Budget::new(100);
        let mut first = budget.take(60).unwrap();
        assert!(budget.take(41).is_none());
        assert!(first.grow(40) && !first.grow(1));
        assert_eq!(budget.spent(), 100);
        drop(first);
        assert!(budget.take(100).is_some());
        assert!(budget.take(usize::MAX).is_none());
        assert_eq!(budget.spent(), 0);
    }
}
