//! Imports go down only, and not in circles. Finds paths anywhere in a file, not only in `use` lines, and names every
//! violation.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Top to bottom; modules on one line do not import each other.
const LAYERS: &[&[&str]] = &[
    &["main", "cli", "fuzzing"],
    &["gateway", "doctor"],
    &["config"],
    &["admin"],
    &["control"],
    &["intake"],
    &["delivery", "sandbox"],
    &["inbound", "queue", "relay"],
    &["dkim", "tls"],
    &["message"],
    &["smtp", "observe", "pem", "rate"],
    &["text", "lookalikes", "tally"],
];

/// No sockets, no files, no waiting.
const PURE: &[&str] = &["smtp", "message", "dkim", "rate"];
const IMPURE: &[&str] = &["tokio::net", "tokio::fs", "tokio::time::sleep", "std::fs", "std::net::Tcp", "std::thread"];

/// Files of one folder that may import each other in a circle: the folder, the files, and why.
const CIRCLES: &[(&str, &[&str], &str)] = &[
    ("inbound", &["data", "mismatch", "sasl", "session", "starttls"], "one state machine: its states name each other"),
    (
        "queue/sqlite",
        &["batch", "open", "salvage", "store", "writer"],
        "opening starts the writer and finishes a salvage that was cut off; both open the database again",
    ),
    (
        "relay",
        &["connection", "smtp", "socket"],
        "a socket holds a permit of the pool of connections that it is in, and a connection its session's socket",
    ),
    ("relay/smtp", &["session", "starttls"], "one state machine: a plain session becomes a secured one"),
];

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

/// The comma-separated items of a `{…}` group, `group` beginning after the brace.
fn group_items(group: &str) -> Vec<String> {
    let mut depth = 1;
    let mut items = vec![String::new()];
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
    assert!(PURE.iter().all(|name| is_declared(name)) && !is_declared("nothing"));
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

/// A file of `src` or of a folder in it, as the path of its module: `config`, `resolve`, `upstream`.
struct Module {
    path: Vec<String>,
    text: String,
}

/// Without the modules that only tests have: `tests.rs` and what a `#[cfg(test)] mod` names.
fn modules() -> Vec<Module> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let mut modules: Vec<Module> = files
        .iter()
        .map(|file| {
            let path = file.strip_prefix(&root).expect("below src").with_extension("");
            let mut path: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if path.last().is_some_and(|last| last == "mod" || last == "lib") {
                path.pop();
            }
            Module { path, text: code(&fs::read_to_string(file).expect("a source file")) }
        })
        .collect();
    let only_in_tests: Vec<Vec<String>> = modules
        .iter()
        .flat_map(|module| {
            let names = module
                .text
                .split("#[cfg(")
                .skip(1)
                .filter(|rest| rest.starts_with("test") || rest.starts_with("any(test"));
            let names = names.filter_map(|rest| rest.split_once("mod ")?.1.split_once(';').map(|(name, _)| name));
            let names = names.filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'));
            names.map(|name| [&module.path[..], &[name.to_owned()]].concat()).collect::<Vec<_>>()
        })
        .collect();
    modules.retain(|module| !only_in_tests.iter().any(|hidden| module.path.starts_with(hidden)));
    modules
}

/// Without comments, and without the tests at the end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The paths of a use tree, `{…}` taken apart: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn flattened(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim_start();
    if let Some(group) = tree.strip_prefix('{') {
        return group_items(group).iter().flat_map(|item| flattened(item)).collect();
    }
    let word: String = tree.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let rest = tree[word.len()..].strip_prefix("::");
    match rest {
        _ if word.is_empty() => Vec::new(),
        Some(rest) => {
            let below = flattened(rest);
            let below = if below.is_empty() { vec![Vec::new()] } else { below };
            below.into_iter().map(|path| [std::slice::from_ref(&word), &path[..]].concat()).collect()
        }
        None => vec![vec![word]],
    }
}

/// Where the paths of a module lead that begin with `crate`, `super` or `self`, each from the root.
fn targets(module: &Module) -> Vec<Vec<String>> {
    let is_within_word =
        |at: usize| module.text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$');
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        let places = module.text.match_indices(start).map(|(at, _)| at).filter(|&at| !is_within_word(at));
        for path in places.flat_map(|at| flattened(&module.text[at..])) {
            let up = path.iter().take_while(|part| *part == "super").count();
            let from = match path[0].as_str() {
                "crate" => &[][..],
                "self" => &module.path[..],
                _ => &module.path[..module.path.len().saturating_sub(up)],
            };
            let named = &path[up.max(usize::from(path[0] != "super"))..];
            found.push([from, named].concat());
        }
    }
    found
}

/// What a folder's own file exports under other names than their files': `pub use pool::Reuse` in `relay`.
fn exports(modules: &[Module]) -> BTreeMap<Vec<String>, Vec<String>> {
    let mut exports = BTreeMap::new();
    for module in modules {
        let uses = module.text.split("use ").skip(1).filter_map(|rest| rest.split_once(';')).map(|(tree, _)| tree);
        for path in uses.flat_map(flattened).filter(|path| path.len() > 1) {
            let path = if path[0] == "self" { &path[1..] } else { &path[..] };
            let (Some(name), false) = (path.last(), ["crate", "super"].contains(&path[0].as_str())) else { continue };
            let full = [&module.path[..], path].concat();
            exports.entry([&module.path[..], std::slice::from_ref(name)].concat()).or_insert(full);
        }
    }
    exports
}

/// The files of each folder with the files of the same folder that they import. A file and the folder of its name are one.
/// The file of the folder itself (`mod.rs`) is left out: it stands above the others and may lend them its types.
fn imports_within_folders(modules: &[Module]) -> BTreeMap<(Vec<String>, String), BTreeSet<String>> {
    let exports = exports(modules);
    let is_module = |path: &[String]| modules.iter().any(|module| module.path == path);
    let mut graph: BTreeMap<(Vec<String>, String), BTreeSet<String>> = BTreeMap::new();
    for module in modules {
        for mut target in targets(module) {
            for depth in 1..=target.len() {
                if let Some(full) = exports.get(&target[..depth]).filter(|_| !is_module(&target[..depth])) {
                    target = [&full[..], &target[depth..]].concat();
                    break;
                }
            }
            let common = module.path.iter().zip(&target).take_while(|(one, other)| one == other).count();
            let (Some(from), Some(to)) = (module.path.get(common), target.get(common)) else { continue };
            let folder = &target[..common];
            if common > 0 && is_module(&[folder, std::slice::from_ref(to)].concat()) {
                graph.entry((folder.to_vec(), from.clone())).or_default().insert(to.clone());
            }
        }
    }
    graph
}

/// Groups of files that all reach each other.
fn circles(modules: &[Module]) -> Vec<(String, Vec<String>)> {
    let graph = imports_within_folders(modules);
    let reached_from = |folder: &Vec<String>, start: &String| {
        let mut reached = BTreeSet::new();
        let mut open = vec![start.clone()];
        while let Some(file) = open.pop() {
            for next in graph.get(&(folder.clone(), file)).into_iter().flatten() {
                if reached.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        reached
    };
    let reached: BTreeMap<_, _> = graph.keys().map(|key| (key.clone(), reached_from(&key.0, &key.1))).collect();
    let mut found = BTreeSet::new();
    for ((folder, file), files) in &reached {
        let back =
            |other: &&String| reached.get(&(folder.clone(), (*other).clone())).is_some_and(|it| it.contains(file));
        let circle: Vec<String> = files.iter().filter(back).cloned().collect();
        if circle.len() > 1 {
            found.insert((folder.join("/"), circle));
        }
    }
    found.into_iter().collect()
}

#[test]
fn files_of_a_folder_do_not_import_each_other_in_a_circle() {
    let modules = modules();
    let found = circles(&modules);
    let known = |(folder, files): &(String, Vec<String>)| {
        CIRCLES.iter().any(|(known, members, _)| known == folder && *members == files.as_slice())
    };
    let graph = imports_within_folders(&modules);
    let imports = |(folder, files): &(String, Vec<String>)| {
        let parts: Vec<String> = folder.split('/').map(str::to_owned).collect();
        let of = |file: &String| {
            let to = graph.get(&(parts.clone(), file.clone())).into_iter().flatten().filter(|to| files.contains(to));
            format!("{folder}: {file} imports {}", to.cloned().collect::<Vec<_>>().join(", "))
        };
        files.iter().map(of).collect::<Vec<_>>()
    };
    let violations: Vec<_> = found.iter().filter(|circle| !known(circle)).flat_map(imports).collect();
    assert!(
        violations.is_empty(),
        "move what is shared into a file below both, or list the circle in CIRCLES with its reason: {violations:#?}"
    );
    let gone = CIRCLES.iter().filter(|(folder, members, _)| {
        !found.iter().any(|(known, files)| known == folder && *members == files.as_slice())
    });
    assert_eq!(gone.collect::<Vec<_>>(), Vec::<&(&str, &[&str], &str)>::new(), "take these out of CIRCLES");
}

#[test]
fn the_finder_sees_what_it_should() {
    let text = "use crate::smtp::Reply; crate::{relay::{Pool, Ready}, observe}; fn f() { crate::config::load() }";
    assert_eq!(imports(text), ["smtp", "relay", "observe", "config"].map(str::to_owned));
    assert!(layer("config") < layer("relay") && layer("relay") == layer("inbound"));
}

#[test]
fn a_circle_is_seen_through_groups_exports_and_folders() {
    let module =
        |path: &str, text: &str| Module { path: path.split('/').map(str::to_owned).collect(), text: code(text) };
    let modules = [
        module("m", "mod a; mod b; mod c; pub use b::{Thing, other::Kind}; use a::Own;"),
        module("m/a", "use super::{Thing, c};"),
        module("m/b", "// crate::m::a\npub struct Thing;\n#[cfg(test)]\nmod tests { use super::super::a; }"),
        module("m/b/deep", "fn f() { crate::m::c::g() }"),
        module("m/c", "use super::a::{self, X as Y};"),
        module("m/c/inner", "use super::super::d; use super::Thing;"),
        module("m/d", "use crate::m::Own as Mine; use std::m::c;"),
    ];
    let graph = imports_within_folders(&modules);
    let of = |file: &str| graph.get(&(vec!["m".to_owned()], file.to_owned())).cloned().unwrap_or_default();
    assert_eq!(of("a"), ["b", "c"].map(str::to_owned).into());
    assert_eq!(of("b"), ["c"].map(str::to_owned).into());
    assert_eq!(of("c"), ["a", "d"].map(str::to_owned).into());
    assert_eq!(of("d"), ["a"].map(str::to_owned).into());
    assert_eq!(circles(&modules), [("m".to_owned(), ["a", "b", "c", "d"].map(str::to_owned).into())]);
}
