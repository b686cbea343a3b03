//! The schema is complete, and its printed form can be read again.

use super::*;
use crate::config::file::File;
use crate::config::problem::Findings;
use toml::de::DeTable;

#[test]
fn every_default_and_example_is_of_the_right_form() {
    let everything: String = SCHEMA
        .0
        .iter()
        .map(|table| {
            let head = if table.name.is_empty() { String::new() } else { table.title() + "\n" };
            let line = |setting: &SettingSchema| format!("{} = {}\n", setting.key, setting.presence.value());
            head + &table.settings.iter().map(line).collect::<String>()
        })
        .collect();
    let document = DeTable::parse(&everything).expect("TOML");
    let mut findings = Findings::default();
    File::read(document.get_ref(), &mut findings);
    assert_eq!(findings.errors, [], "{everything}");
}

#[test]
fn what_is_printed_is_toml_with_every_key() {
    let printed = Defaults.to_string();
    assert!(DeTable::parse(&printed).is_ok(), "{printed}");
    for setting in SCHEMA.settings() {
        assert!(printed.contains(&format!("{} = ", setting.key)), "{}", setting.key);
        assert!(!setting.doc.is_empty() && !(setting.expected)().is_empty(), "{}", setting.key);
    }
    let too_long =
        printed.lines().find(|line| line.starts_with("# ") && !line.contains(" = ") && line.chars().count() > WIDTH);
    assert_eq!(too_long, None);
}

#[test]
fn text_is_wrapped_between_words() {
    assert_eq!(wrapped("a bc def", 4), ["a bc", "def"]);
    assert_eq!(wrapped("longer", 4), ["longer"]);
    assert_eq!(wrapped("set a = 1 or { b = 2 }.", 4), ["set", "a = 1", "or", "{ b = 2 }."]);
    assert_eq!(paragraphs(&[" a", " b", "", " c"]), ["a b", "c"]);
}
