//! `data_dir`: whether the gateway can use it, whether it is private, and whether its disk has room. Writes nothing.

use super::check::CheckResult;
use super::examination::{Examination, Results};
use crate::observe::CheckId;
use rustix::fs::Access;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const OTHERS: u32 = 0o077;

pub fn probe(exam: &Examination, out: &Results) {
    let path = &exam.settings.data_dir;
    out.put(access(path));
    let existing = path.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    out.put(space(path, existing, exam.settings.queue.min_free_space));
}

fn access(path: &Path) -> CheckResult {
    let shown = path.display();
    let id = CheckId::DataDirAccess;
    let uid = rustix::process::geteuid().as_raw();
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let text = format!("{shown} does not exist yet; the first start creates it");
            return CheckResult::not_applicable(id, "", text);
        }
        Err(error) => {
            return CheckResult::unknown(id, "", format!("{shown} cannot be looked at ({error})"))
                .fix("run this as the user that the gateway runs as");
        }
    };
    if !found.is_dir() {
        return CheckResult::failed(id, "", format!("{shown} is a file")).fix("set `data_dir` to a folder");
    }
    if found.uid() != uid && uid != 0 {
        return CheckResult::unknown(id, "", format!("{shown} belongs to another user (uid {})", found.uid()))
            .cause(format!("this command runs as uid {uid}"))
            .fix(format!(
                "run this as the user that the gateway runs as; if that is uid {uid}: chown -R {uid} {shown}"
            ));
    }
    if rustix::fs::access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return CheckResult::failed(id, "", format!("{shown} cannot be written to"))
            .cause("the queue, the locks and the control socket are there")
            .fix(format!("chmod 700 {shown}, and check that its file system is not mounted read-only"));
    }
    if found.mode() & OTHERS != 0 {
        return CheckResult::warning(id, "", format!("{shown} is open to other users"))
            .evidence(format!("mode {:04o}", found.mode() & 0o7777))
            .cause("it holds mail, among it links that reset passwords")
            .fix(format!("chmod 700 {shown}"));
    }
    CheckResult::ok(id, "", format!("{shown} is there and private"))
}

fn space(data_dir: &Path, folder: &Path, floor: u64) -> CheckResult {
    const MIB: u64 = 1 << 20;
    let id = CheckId::DataDirSpace;
    let Ok(seen) = rustix::fs::statvfs(folder) else {
        return CheckResult::unknown(id, "", format!("the disk of {} cannot be asked", folder.display()));
    };
    let free = seen.f_bavail.saturating_mul(seen.f_frsize);
    let text = format!("{} MiB are free on the disk of {}", free / MIB, data_dir.display());
    let evidence = format!("`min_free_space` is {} MiB", floor / MIB);
    if seen.f_files > 0 && seen.f_favail == 0 {
        return CheckResult::failed(id, "", "the disk has no inodes left")
            .fix("remove files, or enlarge the file system");
    }
    if free < floor {
        CheckResult::failed(id, "", text)
            .evidence(evidence)
            .cause("below it no new mail is accepted: applications get a 452")
            .fix("free some space; `waxseal queue remove` removes failed mail that is kept")
    } else if free < floor.saturating_mul(2) {
        CheckResult::warning(id, "", text)
            .evidence(evidence)
            .cause("below it no new mail will be accepted")
            .fix("free some space, or lower `min_free_space`")
    } else {
        CheckResult::ok(id, "", text)
    }
}
