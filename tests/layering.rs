//! Imports go down only. Finds `crate::` anywhere in a file, not only in `use` lines, and names every violation.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Top to bottom; modules on one line do not import each other.
const LAYERS: &[&[&str]] = &[
    &["main", "cli", "fuzzing"],
    &["gateway"],
    &["config"],
    &["control"],
    &["intake"],
    &["delivery", "sandbox"],
    &["inbound", "queue", "relay"],
    &["dkim", "tls"],
    &["message"],
    &["smtp", "observe", "pem"],
    &["text", "lookalikes", "tally"],
];

/// No sockets, no files, no waiting.
const PURE: &[&str] = &["smtp", "message", "dkim"];
const IMPURE: &[&str] = &["tokio::net", "tokio::fs", "tokio::time::sleep", "std::fs", "std::net::Tcp", "std::thread"];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let module_of = |path: &Path| {
        let first = path.strip_prefix(&root).expect("below src").components().next().expect("a component");
        first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
    };
    files
        .into_iter()
        .map(|path| (module_of(&path), path.clone(), fs::read_to_string(&path).expect("a source file")))
        .filter(|(module, ..)| module != "lib")
        .collect()
}

/// Top-level modules that a text names after `crate::`, groups such as `crate::{a::b, c}` included.
fn imports(text: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for (at, prefix) in text.match_indices("crate::") {
        let rest = &text[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_items(group).iter().map(|item| word(item.trim()))),
            None => found.push(word(rest)),
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// The comma-separated items of a `{…}` group, `group` beginning behind the brace.
fn group_items(group: &str) -> Vec<String> {
    let (mut depth, mut items) = (1, vec![String::new()]);
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => items.push(String::new()),
            _ => items.last_mut().expect("never empty").push(character),
        }
        if depth == 0 {
            break;
        }
    }
    items
}

#[test]
fn imports_go_down_only() {
    let mut violations = Vec::new();
    for (module, path, text) in sources() {
        let own = layer(&module).unwrap_or_else(|| panic!("{module} has no layer; add it to LAYERS"));
        for name in imports(&text) {
            if name == module {
                continue;
            }
            match layer(&name) {
                Some(other) if other > own => {}
                Some(_) => violations.push(format!("{}: {module} imports {name}", path.display())),
                None => violations.push(format!("{}: crate::{name} is not a module of any layer", path.display())),
            }
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn every_module_of_a_layer_exists() {
    let root = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("a source file");
    let is_declared = |name: &str| root.lines().any(|line| line.ends_with(&format!("mod {name};")));
    let missing: Vec<_> =
        LAYERS.iter().copied().flatten().filter(|name| **name != "main" && !is_declared(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(PURE.iter().all(|name| is_declared(name)) && !is_declared("doctor"));
}

/// What the suite of a queue's backends must not know: any backend runs it by one line of its own.
const OF_ONE_BACKEND: &[&str] = &["sql", "redis", "disk", "std::fs", "tempfile", "data_dir"];

#[test]
fn the_conformance_suite_knows_no_backend() {
    let mut violations = Vec::new();
    let suite = sources().into_iter().filter(|(_, path, _)| path.to_string_lossy().contains("src/queue/conformance"));
    let suite: Vec<_> = suite.collect();
    assert!(suite.len() > 10, "{} files", suite.len());
    for (_, path, text) in suite {
        let text = text.to_lowercase();
        for word in OF_ONE_BACKEND.iter().filter(|word| text.contains(**word)) {
            violations.push(format!("{}: {word}", path.display()));
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn pure_modules_touch_neither_sockets_nor_files() {
    let mut violations = Vec::new();
    for (module, path, text) in sources() {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in IMPURE.iter().filter(|word| PURE.contains(&module.as_str()) && code.contains(**word)) {
            violations.push(format!("{}: {word}", path.display()));
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn the_finder_sees_what_it_should() {
    let text = "use crate::smtp::Reply; crate::{relay::{Pool, Ready}, observe}; fn f() { crate::config::load() }";
    assert_eq!(imports(text), ["smtp", "relay", "observe", "config"].map(str::to_owned));
    assert!(layer("config") < layer("relay") && layer("relay") == layer("inbound"));
}
