//! Rates: how much mail may pass in a period, counted over time that is passed in. Used for what providers get and for
//! what applications submit.
//!
//! [`Rate`] is what is configured; `limiter` counts an account's load, purely; `window` never allows more than a rate in
//! any period of its length; `quota` is the part of the usage that survives a restart. Never waits, and knows neither
//! upstreams nor clients.

mod allowance;
mod gcra;
mod limiter;
mod load;
mod quota;
pub(crate) mod shared;
mod stored;
mod throttle;
mod units;
mod window;

pub(crate) use allowance::{Allowance, AllowedLater};
pub(crate) use limiter::{LimitCheck, Limiter, QuotaUsage, RatePosition};
pub(crate) use load::Load;
pub use load::{Counting, Counts};
pub use quota::{QuotaBucket, QuotaRecord, QuotaStore};
pub(crate) use quota::{QuotaReservation, TwoClocks, name as quota_name};
pub(crate) use stored::StoredUsage;
pub(crate) use throttle::{Throttle, ThrottleFactor};
pub use units::{Rate, RateError};
pub(crate) use window::Moment;
