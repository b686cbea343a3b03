//! How fast mail may be sent to an account: rates, their stored usage, and throttling by the provider.
//!
//! [`Rate`] is what is configured; `limiter` counts, purely, over time that is passed in; `gate` is where a transaction
//! waits for its turn. Never allows more than a rate in any period of its length.

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
