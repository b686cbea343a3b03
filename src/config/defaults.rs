//! `waxseal check --defaults`: every key with its documentation and its default, straight from the schema.
//! Nothing is written here by hand, so that it cannot differ from what is read.

use super::environment::VARIABLES;
use super::file::SCHEMA;
use super::schema::{Presence, SettingSchema, TableSchema};
use std::fmt::{self, Write as _};

/// Prints as TOML in which every line that is not a default is a comment.
#[derive(Debug, Clone, Copy)]
pub struct Defaults;

impl fmt::Display for Defaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in SCHEMA.0 {
            write_table(f, table)?;
        }
        writeln!(f, "# Variables of the environment, or files of these names in /run/secrets (or $CONFIG_DIR).")?;
        VARIABLES.iter().try_for_each(|(name, meaning)| writeln!(f, "# {name}: {meaning}"))
    }
}

impl Defaults {
    /// The same for programs: one object for each key.
    pub fn to_json(self) -> serde_json::Value {
        let of_table = |table: &'static TableSchema| {
            table.settings.iter().map(|setting| {
                let kind = match setting.presence {
                    Presence::Default(_) => "default",
                    Presence::Required(_) => "required",
                    Presence::Optional(_) => "optional",
                };
                serde_json::json!({
                    "table": table.name,
                    "key": setting.key,
                    "kind": kind,
                    // The default, else an example.
                    "value": setting.presence.value(),
                    "description": text(setting.doc),
                })
            })
        };
        SCHEMA.0.iter().copied().flat_map(of_table).collect()
    }
}

fn write_table(f: &mut fmt::Formatter<'_>, table: &TableSchema) -> fmt::Result {
    write_doc(f, table.doc)?;
    if !table.name.is_empty() {
        writeln!(f, "{}", table.title())?;
    }
    f.write_char('\n')?;
    table.settings.iter().try_for_each(|setting| write_setting(f, setting))
}

fn write_setting(f: &mut fmt::Formatter<'_>, setting: &SettingSchema) -> fmt::Result {
    write_doc(f, setting.doc)?;
    let line = format!("{} = {}", setting.key, setting.presence.value());
    match setting.presence {
        Presence::Required(_) => writeln!(f, "# {line}    # required; an example\n"),
        Presence::Optional(_) => writeln!(f, "# {line}    # optional; an example\n"),
        Presence::Default(_) => writeln!(f, "{line}\n"),
    }
}

fn write_doc(f: &mut fmt::Formatter<'_>, doc: &[&str]) -> fmt::Result {
    doc.iter().try_for_each(|line| writeln!(f, "{}", format!("# {}", line.trim()).trim_end()))
}

fn text(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::File;
    use crate::config::problem::Findings;
    use std::collections::BTreeMap;
    use toml::de::DeTable;

    const SHIPPED: &str = include_str!("../../config.toml");

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
            assert!(!setting.doc.is_empty(), "{}", setting.key);
        }
    }

    /// Keys of the shipped file, active or commented out, as `table.key` with their values.
    fn shipped() -> BTreeMap<String, Vec<(&'static str, bool)>> {
        let mut keys: BTreeMap<String, Vec<_>> = BTreeMap::new();
        let mut table = "";
        for line in SHIPPED.lines() {
            let (line, active) = line.strip_prefix("# ").map_or((line, true), |rest| (rest, false));
            if let Some(name) = line.strip_prefix('[') {
                table = name.trim_start_matches('[').split(']').next().unwrap_or_default();
            } else if let Some((key, value)) = line.split_once(" = ").filter(|(key, _)| !key.contains([' ', '`'])) {
                keys.entry(format!("{table}.{key}")).or_default().push((value, active));
            }
        }
        keys
    }

    #[test]
    fn the_shipped_file_has_every_key_with_its_default() {
        let mut shipped = shipped();
        for table in SCHEMA.0 {
            for setting in table.settings {
                let name = format!("{}.{}", table.name, setting.key);
                let found = shipped.remove(&name).unwrap_or_default();
                assert!(!found.is_empty(), "config.toml lacks {name}");
                if let Presence::Default(default) = setting.presence {
                    let commented = found.iter().filter(|(_, active)| !active);
                    commented.for_each(|(value, _)| assert_eq!(*value, default, "{name}"));
                }
            }
        }
        assert!(shipped.is_empty(), "config.toml has keys that mean nothing: {:?}", shipped.keys());
    }
}
