//! What the errors of SQLite and the system mean: no space, trouble, or an unreadable row.

use crate::queue::QueueError;
use rusqlite::ErrorCode;
use rusqlite::ffi::{SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_VNODE};
use std::io;

/// Why an operation inside a transaction failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl From<Failure> for QueueError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Sqlite(error) => of_sqlite(&error),
            Failure::Queue(error) => error,
        }
    }
}

pub(super) fn of_sqlite(error: &rusqlite::Error) -> QueueError {
    // SHMSIZE: the WAL's index could not grow; on a full disk this comes before SQLITE_FULL.
    let index_cannot_grow = error.sqlite_error().is_some_and(|error| error.extended_code == SQLITE_IOERR_SHMSIZE);
    if error.sqlite_error_code() == Some(ErrorCode::DiskFull) || index_cannot_grow {
        QueueError::Full(error.to_string())
    } else {
        QueueError::Storage(error.to_string())
    }
}

pub(super) fn of_io(error: &io::Error) -> QueueError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => QueueError::Full(error.to_string()),
        _ => QueueError::Storage(error.to_string()),
    }
}

/// The database is to blame: a page, the schema, or the header.
pub(super) fn is_unreadable(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        // The error for a damaged schema, or for a table that it no longer lists.
        || error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_ERROR)
}

/// The row is to blame, and reading it again will not help.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, QueryReturnedNoRows, Utf8Error,
    };
    match error {
        FromSqlConversionFailure(..)
        | IntegralValueOutOfRange(..)
        | InvalidColumnType(..)
        | QueryReturnedNoRows
        | Utf8Error(..) => true,
        _ => {
            let vanished = error.sqlite_error().is_some_and(|error| error.extended_code == SQLITE_IOERR_VNODE);
            error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) && !vanished
        }
    }
}
