//! The compose files in deploy/ are valid YAML, and waxseal reads every variable that they set for it. systemd accepts the unit and
//! finds little that it could do besides its work.
//!
//! Parsed by a reader for the parts of YAML that compose files need: maps, lists and texts. Anything else is an error here,
//! so that the files stay simple.

use crate::support::peers;
use std::collections::BTreeMap;
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
