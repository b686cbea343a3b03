//! Finds the tables of a document, and those within a table, and has each read against its schema.
//! A table of the wrong shape is reported and, where it can be, read all the same.

use super::file::TABLES;
use super::problem::{Findings, Place};
use super::reader::{TableReader, find, kind};
use super::schema::Section;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub struct Sections<'a, 'f> {
    pub document: &'a DeTable<'a>,
    pub findings: &'f mut Findings,
}

impl<'a> Sections<'a, '_> {
    pub fn read<S: Section>(&mut self, content: &'a DeTable<'a>, place: Place) -> S {
        let mut reader = TableReader::new(S::TABLE, content, place, self.findings);
        let section = S::read(&mut reader);
        reader.finish(TABLES);
        section
    }

    pub fn one<S: Section>(&mut self) -> S {
        match find(self.document, S::TABLE.key()) {
            None => S::empty(Place::Nowhere),
            Some(value) => match value.get_ref() {
                DeValue::Table(content) => self.read(content, Place::File(value.span())),
                _ => {
                    self.wrong_shape::<S>(value);
                    S::empty(Place::File(value.span()))
                }
            },
        }
    }

    pub fn many<S: Section>(&mut self) -> Vec<S> {
        let Some(value) = find(self.document, S::TABLE.key()) else { return Vec::new() };
        match value.get_ref() {
            DeValue::Array(items) if items.iter().all(|item| matches!(item.get_ref(), DeValue::Table(_))) => items
                .iter()
                .filter_map(|item| Some((item.get_ref().as_table()?, item.span())))
                .map(|(content, at)| self.read(content, Place::File(at)))
                .collect(),
            // Read all the same, so that its other problems are not hidden behind this one.
            DeValue::Table(content) => {
                self.wrong_shape::<S>(value);
                vec![self.read(content, Place::File(value.span()))]
            }
            _ => {
                self.wrong_shape::<S>(value);
                Vec::new()
            }
        }
    }

    fn wrong_shape<S: Section>(&mut self, value: &Spanned<DeValue<'_>>) {
        let (name, title) = (S::TABLE.key(), S::TABLE.title());
        self.findings
            .error(
                &Place::File(value.span()),
                format!("`{name}` must be written as {title}, not as {}", kind(value.get_ref())),
            )
            .help(format!("put {title} on a line of its own and the keys below it"));
    }
}
