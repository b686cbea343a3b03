//! How fast mail may go to an account: rates, what survives a restart of them, and how a provider slows it down.
//!
//! [`Rate`] is what is configured; `limiter` counts, purely, over time that is passed in; `gate` is where a transaction waits
//! for its turn. Nothing here ever lets more through than a rate says, in any stretch of that length.

mod gate;
mod gcra;
mod limiter;
mod load;
mod quota;
mod rate;
mod throttle;
mod window;

pub(super) use gate::{Gate, RateToken, TokenDenied};
pub(super) use load::Load;
pub use load::{Counting, Counts};
pub use quota::{AccountQuotas, QuotaBucket, QuotaStore};
pub use rate::{Rate, RateError};
pub(super) use throttle::ThrottleFactor;
