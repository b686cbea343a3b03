//! The crash matrix: whatever happens to the process, the machine, the disk or the provider, no acknowledged mail is
//! lost, and mail arrives twice only where it was in flight.
//!
//! Each row is a campaign: load, fault, restart, drain, audit. `make crash` runs every row in full and prints the table
//! of docs/reliability.md; the tests here run the same rows in a short version.

pub mod campaign;
mod damaged;
mod disk;
mod kill;
pub mod load;
mod moved;
mod power;
mod provider;
mod small_disk;
mod table;

use campaign::Row;

/// The short version for every test run, or the full one for the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Short,
    Full,
}

impl Scale {
    /// `CRASH=full` selects the full version, for a single row's test as well as for the table.
    pub fn asked() -> Self {
        if std::env::var("CRASH").as_deref() == Ok("full") { Self::Full } else { Self::Short }
    }

    pub fn of(self, short: usize, full: usize) -> usize {
        match self {
            Self::Short => short,
            Self::Full => full,
        }
    }
}

/// Checks that each campaign kept the promise.
pub fn assert_kept(row: &Row) {
    println!("{row:?}");
    assert_eq!(row.lost, 0, "{row:?}");
    assert_eq!(row.cut_or_mixed, 0, "{row:?}");
    assert!(row.duplicates <= row.duplicates_bound, "{row:?}");
    assert_eq!(row.unlogged_duplicates, 0, "{row:?}");
    assert_eq!(row.came_back, 0, "{row:?}");
    assert!(row.acknowledged > 0, "a campaign without mail shows nothing: {row:?}");
}
