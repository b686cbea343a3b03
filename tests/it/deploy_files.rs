//! The compose files in deploy/ are valid YAML, and waxseal reads every variable that they set for it. The Dockerfile is made of
//! what is there. systemd accepts the unit and finds little that it could do besides its work.
//!
//! Parsed by a reader for the parts of YAML that compose files need: maps, lists and texts. Anything else is an error here,
//! so that the files stay simple.

use crate::support::gateway::Setup;
use crate::support::peers;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const FILES: [&str; 2] = ["compose.yaml", "compose.override.yml"];

fn text(name: &str) -> String {
    let path = format!("{}/deploy/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Each value by the names above it, with dots; the items of a list by their numbers.
fn values(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut above: Vec<(usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        assert!(!line.contains('\t'), "line {}: YAML has no tabs", number + 1);
        let indent = line.len() - content.len();
        above.retain(|(other, _)| *other < indent);
        let place =
            |name: &str| above.iter().map(|(_, name)| name.as_str()).chain([name]).collect::<Vec<_>>().join(".");
        if let Some(item) = content.strip_prefix("- ") {
            let items = found.keys().filter(|name: &&String| name.starts_with(&place(""))).count();
            found.insert(place(&items.to_string()), item.trim().to_owned());
            continue;
        }
        let (name, value) = content.split_once(':').unwrap_or_else(|| panic!("line {}: {line}", number + 1));
        assert!(value.is_empty() || value.starts_with(' '), "line {}: {line}", number + 1);
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        let earlier = found.insert(place(name), value.to_owned());
        assert_eq!(earlier, None, "line {}: {name} is there twice", number + 1);
        above.push((indent, name.to_owned()));
    }
    found
}

/// Names and values that a file sets for one service, with those in comments that are to be uncommented.
fn variables(name: &str, service: &str) -> BTreeMap<String, String> {
    let values = values(&text(name));
    let prefix = format!("services.{service}.environment.");
    values.iter().filter_map(|(place, value)| Some((place.strip_prefix(&prefix)?.to_owned(), value.clone()))).collect()
}

/// What the program says of itself.
fn known_variables() -> Vec<String> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_waxseal")).args(["check", "--defaults"]).output().expect("the program");
    let said = String::from_utf8(output.stdout).expect("text");
    let (_, list) = said.split_once("# Variables of the environment").expect("the list");
    list.lines().filter_map(|line| line.strip_prefix("# ")?.split_once(':')).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn what_the_compose_files_and_the_image_set_is_what_the_gateway_reads() {
    let known = known_variables();
    assert!(known.iter().any(|name| name == "SMTP_HOST_ADDR"), "{known:?}");
    let mut named = Vec::new();
    for file in FILES {
        named.extend(variables(file, "waxseal").into_keys());
    }
    // Also what is in comments, and in the image and the README.
    for file in ["compose.yaml", "compose.override.yml", "Dockerfile", "README.md"] {
        let text = text(file);
        let words = text.split(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_');
        let ours =
            words.filter(|word| word.starts_with("WAXSEAL_") || (word.starts_with("DKIM_") && *word != "DKIM_KEY"));
        named.extend(ours.map(str::to_owned));
    }
    assert!(named.len() > 10, "{named:?}");
    let unknown: Vec<_> = named.iter().filter(|name| !known.contains(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn plausible_finds_the_gateway_by_its_service_and_only_their_network_may_send() {
    for file in FILES {
        let values = values(&text(file));
        let plausible = variables(file, "plausible");
        let waxseal = variables(file, "waxseal");
        let host = &plausible["SMTP_HOST_ADDR"];
        assert!(values.contains_key(&format!("services.{host}.image")), "{file}: {host} is not a service");
        assert!(waxseal["WAXSEAL_LISTEN"].ends_with(&format!(":{}", plausible["SMTP_HOST_PORT"])), "{file}");
        // An empty one would be a login, too: they are moved, not emptied.
        assert!(!plausible.contains_key("SMTP_USER_NAME") && !plausible.contains_key("SMTP_USER_PWD"), "{file}");
        let subnet = &values["networks.mail.ipam.config.0"];
        assert_eq!(subnet, &format!("subnet: {}", waxseal["WAXSEAL_ALLOW"]), "{file}");
        for service in ["plausible", "waxseal"] {
            assert!(values[&format!("services.{service}.networks")].contains("mail"), "{file}: {service}");
        }
        assert!(!values.keys().any(|name| name.starts_with("services.waxseal.ports")), "{file} publishes the port");
        assert_eq!(values["volumes.waxseal-data"], "{}", "{file}");
    }
}

/// What the gateway makes of the files as they are, and of what they show in comments.
#[test]
fn each_compose_file_configures_a_gateway_without_mistakes() {
    for file in FILES {
        let provider = [
            ("SMTP_HOST_ADDR", "smtp.example.com"),
            ("SMTP_HOST_PORT", "587"),
            ("SMTP_USER_NAME", "relay"),
            ("SMTP_USER_PWD", "canary"),
        ];
        let text = text(file);
        let comment: Vec<&str> =
            text.lines().filter_map(|line| Some(line.trim_start().strip_prefix("# ")?.trim())).collect();
        for (name, _) in provider {
            assert!(comment.iter().any(|line| line.starts_with(&format!("{name}="))), "{file} does not name {name}");
        }
        let mut setup = Setup::new(None);
        for (name, value) in provider {
            setup = setup.env(name, value);
        }
        for (name, value) in variables(file, "waxseal") {
            setup = setup.env(&name, value);
        }
        let checked = setup.output(&["check"]);
        let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
        assert_eq!(checked.status.code(), Some(0), "{file}: {said}");
        assert_eq!(said.matches("warning: ").count(), 1, "{file}: only the missing key: {said}");
        // With the lines for a key in force.
        setup = setup.env("DKIM_GENERATE", "true").env("DKIM_PRIVATE_KEY", "key.pem");
        for line in comment.iter().filter(|line| line.starts_with("DKIM_DOMAIN:") || line.starts_with("DKIM_SELECTOR:"))
        {
            let (name, value) = line.split_once(": ").unwrap();
            setup = setup.env(name, value.trim_matches('"'));
        }
        let checked = setup.command(&["check", "--strict"]).output().expect("the program");
        let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
        assert_eq!(checked.status.code(), Some(0), "{file}: {said}");
    }
}

/// The instructions of the Dockerfile, lines that are continued joined.
fn instructions() -> Vec<(String, String)> {
    let joined = text("Dockerfile").replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            line.split_once(' ').map(|(verb, rest)| (verb.to_owned(), rest.trim().to_owned())).expect("an instruction")
        })
        .collect()
}

fn all(verb: &str) -> Vec<String> {
    instructions().into_iter().filter(|(found, _)| found == verb).map(|(_, rest)| rest).collect()
}

#[test]
fn the_image_is_made_of_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let [build, run] = &all("FROM")[..] else { panic!("two stages") };
    let minimum = env!("CARGO_PKG_RUST_VERSION");
    assert!(
        build.starts_with(&format!("rust:{minimum}-bookworm AS build")) && run.starts_with("debian:bookworm-slim"),
        "{build} {run}"
    );

    // What is copied is there, nothing else is needed to build, and the context has it.
    let context = tempfile::tempdir().unwrap();
    let ignored = std::fs::read_to_string(root.join(".dockerignore")).unwrap();
    let let_through: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignored.lines().any(|line| line == "*"), "all others stay out: keys, mail, target");
    let mut copied = Vec::new();
    for copy in all("COPY").into_iter().filter(|copy| !copy.starts_with("--from=")) {
        let words: Vec<&str> = copy.split_whitespace().collect();
        copied.extend(words[..words.len() - 1].iter().map(|path| (*path).to_owned()));
    }
    for path in &copied {
        assert!(let_through.contains(&path.as_str()), ".dockerignore keeps {path} out");
        let done = Command::new("cp").arg("-r").arg(root.join(path)).arg(context.path()).status().unwrap();
        assert!(done.success(), "{path}");
    }
    assert_eq!(let_through.len(), copied.len(), "{let_through:?}");
    let read = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(context.path())
        .output()
        .unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let from_build = all("COPY").into_iter().find(|copy| copy.starts_with("--from=build")).expect("the program");
    assert_eq!(from_build, "--from=build /src/target/release/waxseal /usr/local/bin/waxseal");
}

#[test]
fn the_image_runs_commands_that_exist_as_an_ordinary_user() {
    let [user] = &all("USER")[..] else { panic!("one user") };
    let (uid, gid) = user.split_once(':').expect("numbers");
    assert!(uid.parse::<u32>().is_ok_and(|uid| uid > 0) && gid.parse::<u32>().is_ok_and(|gid| gid > 0), "{user}");
    assert_eq!(all("ENTRYPOINT"), ["[\"waxseal\"]"]);
    let setup = Setup::new(None);
    let health = all("HEALTHCHECK").concat();
    let health = health.split_once("CMD ").expect("a command").1.to_owned();
    for command in [all("CMD").concat(), health] {
        let words: Vec<String> = serde_json::from_str(&command).expect("the form without a shell");
        let words: Vec<&str> =
            words.iter().map(String::as_str).filter(|word| *word != "waxseal").chain(["--help"]).collect();
        assert!(setup.output(&words).status.success(), "{command}");
    }
    // The environment that it sets, with who may send, is enough.
    let environment = all("ENV").concat();
    let mut setup = Setup::new(None).env("WAXSEAL_PROVIDER", "sandbox").env("WAXSEAL_ALLOW", "172.18.0.0/16");
    for (name, value) in environment.split_whitespace().filter_map(|pair| pair.split_once('=')) {
        setup = setup.env(name, value);
    }
    let checked = setup.output(&["check"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let port = environment
        .split_once("WAXSEAL_LISTEN=")
        .and_then(|(_, rest)| rest.split([' ', '\n']).next()?.rsplit(':').next());
    assert_eq!(Some(all("EXPOSE").concat().as_str()), port);
}

/// README.md of deploy/ lists what is in the folder, and nothing else.
#[test]
fn the_page_on_deploying_lists_every_file() {
    let page = text("README.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(
            name == "README.md" || rows.iter().any(|row| row.contains(&format!("`{name}"))),
            "{name} is not listed"
        );
    }
    for row in rows.iter().filter_map(|row| row.split('|').nth(1)) {
        for name in row.split('`').skip(1).step_by(2) {
            assert!(folder.join(name).exists(), "{name} is listed, but is not there");
        }
    }
}

#[test]
fn the_unit_is_valid_and_takes_from_the_program_what_it_does_not_need() {
    let Some(analyze) = peers::find("systemd-analyze") else {
        peers::skip("systemd-analyze is missing");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    // The program is not installed here.
    let unit = text("waxseal.service").replace("/usr/local/bin/waxseal", env!("CARGO_BIN_EXE_waxseal"));
    let path = folder.path().join("waxseal.service");
    std::fs::write(&path, unit).unwrap();
    let asked = |arguments: &[&str]| {
        let output = Command::new(&analyze).args(arguments).arg(&path).output().expect("systemd-analyze");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let (is_valid, said) = asked(&["verify", "--recursive-errors=no"]);
    assert!(is_valid && !said.contains("waxseal.service:"), "{said}");
    // In tenths, from 0 to 100.
    let (is_tight, said) = asked(&["security", "--offline=true", "--threshold=20"]);
    assert!(is_tight, "{said}");
}
