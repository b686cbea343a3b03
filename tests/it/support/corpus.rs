//! The .eml files of the mail-parser crate: RFC examples, mail of old and unusual programs, malformed mail. They are read
//! from cargo's own directory; nothing is copied.

use super::awkward::normalised;
use super::{clock, peers};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// By name, with CRLF as line ends; `None` after saying that the crate was packaged without them.
pub fn messages() -> Option<Vec<(String, Vec<u8>)>> {
    let folder = package("mail-parser").join("resources/eml");
    let mut files = Vec::new();
    eml_files(&folder, &mut files);
    files.sort();
    if files.is_empty() {
        peers::skip("the mail-parser crate comes without its messages");
        return None;
    }
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(&folder).expect("below the folder").display().to_string();
        (name.replace('/', "-"), normalised(&std::fs::read(path).expect("a file")))
    };
    Some(files.iter().map(read).collect())
}

fn eml_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            eml_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "eml") {
            found.push(path);
        }
    }
}

fn package(name: &str) -> PathBuf {
    // Of this platform only: what others need was never downloaded.
    let version = peers::run(clock::of_the_machine(&mut Command::new("rustc")).arg("-vV"));
    let platform = version.stdout.lines().find_map(|line| line.strip_prefix("host: ")).expect("the host's name");
    let arguments = ["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform", platform];
    let mut cargo = Command::new(env!("CARGO"));
    clock::of_the_machine(&mut cargo).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    let said = peers::run(&mut cargo);
    assert!(said.success, "{}", said.stderr);
    let metadata: Value = serde_json::from_str(&said.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("a list");
    let found = packages.iter().find(|package| package["name"] == name).expect("a dependency");
    Path::new(found["manifest_path"].as_str().expect("a path")).parent().expect("a folder").to_owned()
}
