//! File systems for one test: a small tmpfs, and an ext4 on a loop file whose power can be cut.
//!
//! They need root; without it, the test prints that it is skipped.

use super::peers;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Unmounted when dropped.
pub struct Mount {
    folder: tempfile::TempDir,
    point: PathBuf,
    /// The loop file of an ext4.
    image: Option<PathBuf>,
    mounted: bool,
}

impl Mount {
    /// `size` as in "8m".
    pub fn tmpfs(size: &str) -> Option<Self> {
        let mut mount = Self::prepare()?;
        let options = format!("size={size}");
        mount.run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", &mount.text()])?;
        mount.mounted = true;
        Some(mount)
    }

    /// An ext4 of 400 MiB; what was not synced is in memory only.
    pub fn ext4() -> Option<Self> {
        let mut mount = Self::prepare()?;
        let image = mount.folder.path().join("image");
        std::fs::File::create(&image).and_then(|file| file.set_len(400 << 20)).expect("the image");
        mount.run("mkfs.ext4", &["-q", image.to_str().expect("UTF-8")])?;
        mount.image = Some(image);
        mount.remount()?;
        Some(mount)
    }

    pub fn path(&self) -> &Path {
        &self.point
    }

    pub fn make_read_only(&self) {
        self.run("mount", &["-o", "remount,ro", &self.text()]).expect("it is mounted again");
    }

    /// As a power cut: everything that was not synced is gone. Nothing can be written until `remount`.
    pub fn cut_power(&self) {
        // EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH, linux/fs/ext4/ext4.h.
        let script = "import fcntl, os, struct, sys; \
                      fcntl.ioctl(os.open(sys.argv[1], 0), 0x8004587d, struct.pack('I', 2))";
        self.run("python3", &["-c", script, &self.text()]).expect("the power is cut");
    }

    /// After a power cut, once nothing uses it any more. The journal is replayed.
    pub fn remount(&mut self) -> Option<()> {
        self.unmount();
        let image = self.image.clone().expect("an ext4");
        self.run("mount", &["-o", "loop", image.to_str().expect("UTF-8"), &self.text()])?;
        self.mounted = true;
        Some(())
    }

    fn prepare() -> Option<Self> {
        if !peers::is_root() {
            peers::skip("mounting a file system needs root");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let point = folder.path().join("mounted");
        std::fs::create_dir(&point).expect("the mount point");
        Some(Self { folder, point, image: None, mounted: false })
    }

    fn text(&self) -> String {
        self.point.display().to_string()
    }

    /// `None` after saying that the test is skipped.
    fn run(&self, program: &str, arguments: &[&str]) -> Option<()> {
        let output = Command::new(program).args(arguments).output();
        match output {
            Ok(output) if output.status.success() => Some(()),
            Ok(output) => {
                peers::skip(&format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()));
                None
            }
            Err(error) => {
                peers::skip(&format!("{program}: {error}"));
                None
            }
        }
    }

    fn unmount(&mut self) {
        for _ in 0..50 {
            if !self.mounted {
                return;
            }
            let done = Command::new("umount").arg(&self.point).stderr(Stdio::null()).status();
            self.mounted = !done.is_ok_and(|status| status.success());
            super::pause();
        }
        panic!("{} is still in use", self.point.display());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted {
            let _best_effort = Command::new("umount").args(["-l", &self.text()]).status();
        }
    }
}
