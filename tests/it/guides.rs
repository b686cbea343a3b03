//! What the guides show works as it stands: every configuration in them passes the check, every page and file that they link is
//! there, and every command that they name exists.

use crate::support::certificate::Issued;
use crate::support::gateway::Setup;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page that users read, with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let in_folder = |folder: &str| std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = in_folder("docs").chain(in_folder("deploy")).chain(in_folder(".")).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.sort();
    assert!(found.len() > 20, "{found:?}");
    found.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The blocks of a language, without the indentation of their list.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start() == format!("```{language}") {
            let indent = line.len() - line.trim_start().len();
            let block = lines.by_ref().take_while(|line| line.trim_start() != "```");
            blocks.push(block.map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect());
        }
    }
    blocks
}

/// What a block leaves out because it stands elsewhere in a configuration.
fn completed(block: &str) -> String {
    let mut head = String::new();
    if !block.contains("hostname = ") {
        head.push_str("hostname = \"gateway.example.com\"\n");
    }
    if !block.contains("[[dkim]]") {
        head.push_str("unsigned = \"send\"\n");
    }
    let mut tables = String::new();
    let named: BTreeSet<&str> = ["company", "backup"].into_iter().filter(|name| block.contains(name)).collect();
    let has_upstream = block.contains("[[upstream]]");
    for name in named.into_iter().chain(["sandbox"]).take(if block.contains("[[route]]") { 2 } else { 1 }) {
        if !has_upstream {
            tables.push_str(&format!("\n[[upstream]]\nname = \"{name}\"\nprovider = \"sandbox\"\n"));
        }
    }
    if block.contains("user = \"plausible\"") {
        tables.push_str("\n[[user]]\nname = \"plausible\"\npassword = { env = \"PLAUSIBLE_PASSWORD\" }\n");
    }
    format!("{head}{block}{tables}")
}

/// The texts in quotes after `key = `, also in `{ key = "..." }`.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let pattern = format!("{key} = \"");
    text.split(&pattern).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

/// With the variables and files that it names.
fn setup_of(text: &str) -> Setup {
    let text = text.replace("/run/secrets/", "secrets/");
    let mut setup = Setup::new(Some(&text));
    for name in values(&text, "env") {
        setup = setup.env(name, "canary");
    }
    let issued = Issued::self_signed(&["gateway.example.com"]);
    for (key, content) in [
        ("file", "canary"),
        ("certificate", &issued.certificate[..]),
        ("ca", &issued.certificate),
        ("private_key", &issued.private_key),
    ] {
        for path in values(&text, key) {
            setup = setup.file(path, content);
        }
    }
    for path in values(&text, "private_key").into_iter().filter(|path| path.contains("dkim")) {
        std::fs::remove_file(setup.folder().join(path)).unwrap();
        let [domain, selector] = [values(&text, "domain")[0], values(&text, "selector")[0]];
        let made = setup.output(&["dkim", "generate", domain, "--selector", selector, "--out", path]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let private = values(&text, "private_key").into_iter().chain(values(&text, "file"));
    for path in private.chain(["config.toml"]) {
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(setup.folder().join(path), owner_only).unwrap();
    }
    setup
}

#[test]
fn every_configuration_in_the_guides_passes_the_check() {
    let mut seen = 0;
    for (page, text) in pages() {
        for block in blocks(&text, "toml") {
            let text = completed(&block);
            let checked = setup_of(&text).output(&["check", "--strict"]);
            let said = [checked.stdout, checked.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert_eq!(checked.status.code(), Some(0), "{}:\n{block}\nas\n{text}\n{said}", page.display());
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn every_page_that_a_guide_links_is_there_and_every_page_is_linked() {
    let mut linked = BTreeSet::new();
    for (page, text) in pages() {
        let folder = page.parent().unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.starts_with("http") && !target.contains(' ')) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { page.clone() } else { folder.join(path) };
            let there = path.canonicalize().unwrap_or_else(|_| panic!("{}: {target} is not there", page.display()));
            if !anchor.is_empty() {
                let anchors = anchors(&std::fs::read_to_string(&there).unwrap());
                assert!(anchors.contains(anchor), "{}: {target}: there is no such heading", page.display());
            }
            linked.insert(there);
        }
    }
    for (page, _) in pages().into_iter().filter(|(page, _)| page.parent().unwrap().ends_with("docs")) {
        assert!(linked.contains(&page.canonicalize().unwrap()), "no page links {}", page.display());
    }
}

/// `src/relay/pool.rs`, between backticks.
#[test]
fn every_file_of_this_project_that_a_page_names_is_there() {
    const FOLDERS: [&str; 7] = ["deploy/", "docs/", "src/", "tests/", "benches/", "fuzz/", ".ci/"];
    // The user's own.
    const TO_BE_MADE: [&str; 2] = ["deploy/waxseal.env", "deploy/plausible.env"];
    let mut seen = 0;
    for (page, text) in pages() {
        for quoted in text.split('`').filter(|quoted| FOLDERS.iter().any(|folder| quoted.starts_with(folder))) {
            let is_part = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
            let path: String = quoted.chars().take_while(|c| is_part(*c)).collect();
            let is_there = root().join(&path).exists() || TO_BE_MADE.contains(&path.as_str());
            assert!(is_there || quoted.contains('*'), "{}: {path} is not there", page.display());
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen}");
}

/// As GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        text.chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    headings.map(anchor).collect()
}

/// The README lists the guides, so that each is found from there.
#[test]
fn the_readme_lists_every_page_of_the_docs() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for (page, _) in pages().into_iter().filter(|(page, _)| page.parent().unwrap().ends_with("docs")) {
        let name = format!("docs/{}", page.file_name().unwrap().display());
        assert!(readme.contains(&name), "README.md does not link {name}");
    }
}

/// In shell blocks and between backticks. Options are checked as well.
#[test]
fn every_command_in_the_guides_exists() {
    let setup = Setup::new(None);
    let mut commands = BTreeSet::new();
    for (page, text) in pages().into_iter().filter(|(page, _)| !page.ends_with("CHANGELOG.md")) {
        let in_blocks = blocks(&text, "sh").concat();
        let quoted = text.split('`').skip(1).step_by(2);
        let lines = in_blocks.lines().chain(quoted).map(str::trim);
        for line in lines.filter_map(|line| line.trim_start_matches("sudo ").strip_prefix("waxseal ")) {
            let line = line.split(['#', '|', ';', '>']).next().unwrap_or_default();
            let is_command = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
            let mut words: Vec<&str> = line.split_whitespace().collect();
            if let ["--config", _, ..] = words.as_slice() {
                words.drain(..2);
            }
            let command: Vec<String> = words.iter().copied().take_while(is_command).map(str::to_owned).collect();
            let options =
                words.iter().filter(|word| word.starts_with("--")).map(|word| word.split('=').next().unwrap());
            let options: Vec<String> = options.map(|word| word.trim_end_matches([',', '.']).to_owned()).collect();
            commands.insert((command, options, page.clone()));
        }
    }
    assert!(commands.len() > 40, "{}", commands.len());
    for (command, options, page) in commands {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        // An argument that looks like a command's name, as in `user hash gitlab`, is accepted here too.
        let help = setup.output(&[&words[..], &["--help"]].concat());
        assert!(help.status.success(), "{}: waxseal {}", page.display(), words.join(" "));
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        for option in options.iter().filter(|option| !["--version", "--config"].contains(&option.as_str())) {
            assert!(help.contains(option.as_str()), "{}: waxseal {} has no {option}", page.display(), words.join(" "));
        }
    }
}
