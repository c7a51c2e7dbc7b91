//! CPU-seconds by where they were used.

use std::ops::{Add, Sub};

/// CPU-seconds of a side.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// All processes of the source's server.
    pub source: f64,
    /// All processes of the replicas' server.
    pub replicas: f64,
    /// What stands between: sync's worker. Natively nothing does: walsenders are the source's, apply workers the replicas'.
    pub between: f64,
}

impl Usage {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.source + self.replicas + self.between
    }
}

impl Add for Usage {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            source: self.source + other.source,
            replicas: self.replicas + other.replicas,
            between: self.between + other.between,
        }
    }
}

impl Sub for Usage {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self {
            source: self.source - other.source,
            replicas: self.replicas - other.replicas,
            between: self.between - other.between,
        }
    }
}
