//! `waxseal check --defaults`: every key with its documentation and its default, directly from the schema. Nothing is
//! written by hand, so it cannot differ from what is read. `shipped` writes `config.toml` and docs/configuration.md
//! from the same schema.

#[cfg(test)]
mod shipped;
#[cfg(test)]
mod tests;

use super::environment::variables::VARIABLES;
use super::file::SCHEMA;
use super::schema::{Presence, SettingSchema, TableSchema};
use std::fmt::{self, Write as _};

/// Prints TOML in which every line that is not a default is a comment.
#[derive(Debug, Clone, Copy)]
pub struct Defaults;

impl fmt::Display for Defaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in SCHEMA.0 {
            write_table(f, table)?;
        }
        writeln!(f, "# Variables of the environment, or files of these names in /run/secrets (or $CONFIG_DIR).")?;
        VARIABLES.iter().try_for_each(|variable| write_doc(f, &[&format!("{}: {}", variable.name, variable.meaning)]))
    }
}

impl Defaults {
    /// The same for programs: one object per key.
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
                    // The default, otherwise an example.
                    "value": setting.presence.value(),
                    // The permitted values.
                    "expects": (setting.expected)(),
                    "description": paragraphs(setting.doc).join("\n\n"),
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

/// Paragraphs as comments, wrapped to a readable width.
fn write_doc(f: &mut impl fmt::Write, doc: &[&str]) -> fmt::Result {
    for (at, paragraph) in paragraphs(doc).iter().enumerate() {
        if at > 0 {
            writeln!(f, "#")?;
        }
        wrapped(paragraph, WIDTH - "# ".len()).iter().try_for_each(|line| writeln!(f, "# {line}"))?;
    }
    Ok(())
}

/// Characters of a line of text.
const WIDTH: usize = 120;

/// Lines up to an empty one form a paragraph.
fn paragraphs(doc: &[&str]) -> Vec<String> {
    let lines: Vec<&str> = doc.iter().map(|line| line.trim()).collect();
    lines.split(|line| line.is_empty()).map(|lines| lines.join(" ")).filter(|text| !text.is_empty()).collect()
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in unbroken(text) {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(&word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

/// Words, where `key = value` and `{ … }` count as one.
fn unbroken(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match words.last_mut() {
            Some(last)
                if word == "=" || last.ends_with(" =") || last.matches('{').count() > last.matches('}').count() =>
            {
                last.push(' ');
                last.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}
