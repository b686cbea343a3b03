//! The location of the control socket: `data_dir/control.sock`, with an address short enough for the system.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

pub(super) const SOCKET: &str = "control.sock";
/// Maximum length of a socket's address, including its final zero, on the most restrictive system.
const MAX_ADDRESS: usize = 104;

/// A socket's address is at most some hundred octets long; a longer path is reached through the open folder.
pub(super) struct ControlAddress {
    pub path: PathBuf,
    _folder: Option<File>,
}

impl ControlAddress {
    pub fn of(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(SOCKET);
        if path.as_os_str().len() < MAX_ADDRESS {
            return Ok(Self { path, _folder: None });
        }
        let folder = File::open(data_dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(SOCKET);
        Ok(Self { path, _folder: Some(folder) })
    }
}
