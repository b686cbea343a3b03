//! `StoredUsage`: where the quotas of one account, user or listener are stored across restarts.

use super::quota::{self, QuotaBucket, QuotaRecord, QuotaReservation, QuotaStore};
use super::units::Rate;
use std::sync::Arc;
use std::time::Duration;
use tracing::error;

/// The name under which the end of what waits is stored, beside the quotas.
const LAST: &str = "waiting";

#[derive(Debug, Clone)]
pub struct StoredUsage {
    pub ledger: Arc<dyn QuotaStore>,
    /// Its name among all that have quotas. An account's does not depend on what its table is called.
    pub name: Arc<str>,
    /// The name that earlier versions used: copied once, if there is nothing under `name`. Also its name in the log.
    pub former: Arc<str>,
}

impl StoredUsage {
    /// What was recorded for every possible quota, including those that are no longer configured.
    pub async fn load(&self) -> Result<Vec<QuotaRecord>, String> {
        let mut records = Vec::new();
        for period in Rate::QUOTA_PERIODS {
            let quota = quota::name(period);
            let mut rows = self.ledger.load(&key(&self.name, &quota)).await?;
            if rows.is_empty() && self.former != self.name {
                rows = self.take_over(&quota).await?;
            }
            records.push(QuotaRecord { period, rows });
        }
        Ok(records)
    }

    /// An error has been logged.
    pub async fn write(&self, quota: &str, reservation: &QuotaReservation) -> Result<(), String> {
        let written = self.ledger.write(&key(&self.name, quota), reservation.rows.clone(), reservation.oldest).await;
        written.inspect_err(|error| error!(account = &*self.former, "quota usage could not be recorded: {error}"))
    }

    /// Until when mail has moments that are still to come, by [`QuotaStore::now`].
    pub async fn load_last(&self) -> Result<Option<Duration>, String> {
        let rows = self.ledger.load(&key(&self.name, LAST)).await?;
        Ok(rows.last().map(|row| row.at))
    }

    /// An error has been logged.
    pub async fn write_last(&self, at: Duration) -> Result<(), String> {
        let row = QuotaBucket { number: 1, at, units: 1 };
        let written = self.ledger.write(&key(&self.name, LAST), vec![row], 1).await;
        written.inspect_err(|error| error!(account = &*self.former, "quota usage could not be recorded: {error}"))
    }

    /// Usage that an earlier version recorded under the table's name.
    async fn take_over(&self, quota: &str) -> Result<Vec<QuotaBucket>, String> {
        let former = key(&self.former, quota);
        let rows = self.ledger.load(&former).await?;
        let Some(oldest) = rows.iter().map(|row| row.number).min() else { return Ok(rows) };
        let moved = match self.ledger.write(&key(&self.name, quota), rows.clone(), oldest).await {
            // Another account may get that name later.
            Ok(()) => self.ledger.write(&former, Vec::new(), i64::MAX).await,
            failed => failed,
        };
        if let Err(error) = moved {
            error!(account = &*self.former, "quota usage could not be moved to its account: {error}");
        }
        Ok(rows)
    }
}

/// A quota's name among those of all accounts.
fn key(account: &str, quota: &str) -> String {
    format!("{account}/{quota}")
}
