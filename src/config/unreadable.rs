//! Explains why a file cannot be read and what to do, with the same words for every file.

use std::io::{Error, ErrorKind};
use std::path::Path;

/// Completes "PATH ...".
pub fn why(error: &Error) -> String {
    match error.kind() {
        ErrorKind::IsADirectory => "is a directory, not a file".to_owned(),
        ErrorKind::InvalidData => "is not UTF-8 text".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

/// `None` if the error needs no explanation.
pub fn what_to_do(path: &Path, error: &Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::IsADirectory => {
            let is_empty = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
            Some(match is_empty {
                true => {
                    "a container engine makes an empty directory of a file that it is to mount and cannot find: remove the \
                     directory on the host, put the file there, and make the container again"
                }
                false => "name the file in it",
            })
        }
        ErrorKind::InvalidData => Some("save it as UTF-8"),
        ErrorKind::PermissionDenied => Some("the gateway's user must be able to read it"),
        _ => None,
    }
}
