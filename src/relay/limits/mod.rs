//! How fast mail may go to an account: rates, what survives a restart of them, and how a provider slows it down.
//!
//! [`Rate`] is what is configured; `limiter` counts, purely, over time that is passed in; `gate` is where a transaction waits
//! for its turn. Nothing here ever lets more through than a rate says, in any stretch of that length.

mod gate;
mod limiter;
mod load;
mod pace;
mod quota;
mod rate;
mod spacing;
mod window;

pub(super) use gate::{Denied, Gate, Token};
pub(super) use load::Load;
pub use load::{Counting, Counts};
pub use quota::{Ledger, Spent};
pub use rate::{Rate, RateError};
