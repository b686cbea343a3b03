//! `make crash`: every row in full, as the table of docs/reliability.md.

use super::campaign::Row;
use super::{Scale, assert_kept, damaged, disk, kill, moved, power, provider, small_disk};

async fn all(scale: Scale) -> Vec<Row> {
    let mut rows = vec![kill::random_kills(scale).await];
    for call in ["fsync,fdatasync", "pwrite64", "ftruncate", "unlink"] {
        rows.extend(kill::kills_at_each_call(call, scale).await);
    }
    rows.extend(power::power_cuts(scale).await);
    rows.extend(disk::rows(scale).await);
    rows.extend(small_disk::rows(scale).await);
    rows.extend(moved::rows().await);
    rows.extend(provider::rows(scale).await);
    rows.push(damaged::damaged_databases(scale).await);
    rows.push(kill::graceful_restarts(scale).await);
    rows
}

/// Runs in full only on request; the rows' own tests run the short version.
#[tokio::test(flavor = "multi_thread")]
async fn the_crash_matrix() {
    if Scale::asked() != Scale::Full {
        return;
    }
    println!("| fault | times | acknowledged | delivered | lost | twice | bound |");
    println!("|---|---|---|---|---|---|---|");
    let rows = all(Scale::Full).await;
    rows.iter().for_each(Row::print);
    let control = power::without_syncs(Scale::Full).await;
    control.iter().for_each(Row::print);
    rows.iter().for_each(assert_kept);
    assert!(control.is_none_or(|row| row.lost > 0), "the negative control must lose mail");
}
