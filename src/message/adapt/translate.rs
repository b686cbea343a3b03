//! Writes tag, stream, metadata and address pool as headers of the provider that will get the message, and removes
//! those of other providers.
//!
//! The application's own headers for that provider stay unless a mark sets them; JSON and lists are merged. Values that
//! the provider's form cannot carry are left out and named.

use super::json;
use super::vocabulary::{FixedSetting, HeaderSlot, MetadataForm, MetadataSlot, SlotForm, Vocabulary};
use crate::message::headers::{Field, FieldRef};
use crate::message::{Marks, RawMessage};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The result of a translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translated {
    /// `None`: the message is unchanged.
    pub message: Option<RawMessage>,
    /// The names of marks for which this provider has no header, or whose value it does not allow.
    pub left_out: Vec<String>,
}

/// `known`: the prefixes of all providers' header names.
pub fn translate(message: &RawMessage, marks: &Marks, vocabulary: &Vocabulary, known: &[&str]) -> Translated {
    let mut new = Headers { message, fields: Vec::new(), objects: BTreeMap::new(), lists: BTreeMap::new() };
    let mut left_out = Vec::new();
    let words = [
        ("tag", &marks.tag, vocabulary.tag),
        ("stream", &marks.stream, vocabulary.stream),
        ("ip_pool", &marks.ip_pool, vocabulary.ip_pool),
    ];
    for (name, mark, word) in words {
        let Some(text) = mark.as_ref().map(|mark| mark.as_str()) else { continue };
        match word.filter(|word| word.allowed.admits(text)) {
            Some(word) if new.word(word, text) => {}
            _ => left_out.push(name.to_owned()),
        }
    }
    match vocabulary.metadata {
        Some(pairs) => new.pairs(pairs, marks, &mut left_out),
        None => left_out.extend(marks.metadata.keys().map(|name| format!("metadata {name}"))),
    }
    if let Some(setting) = vocabulary.no_tracking {
        new.setting(setting);
    }
    let fields = new.finish(&mut left_out);
    let is_foreign = |field: &FieldRef<'_>| begins_as(field, known) && !begins_as(field, vocabulary.own);
    let is_replaced = |field: &FieldRef<'_>| fields.iter().any(|(name, _)| field.is(name));
    let mut edited = message.clone();
    let is_changed = |field: &FieldRef<'_>| is_foreign(field) || is_replaced(field);
    let mut touched: Vec<String> = message.fields().filter(is_changed).map(|field| lower(field.name())).collect();
    touched.extend(fields.iter().map(|(name, _)| name.to_ascii_lowercase()));
    // An application's own signature over one of them would no longer verify.
    edited.remove_fields(|field| is_changed(field) || signs(field, &touched));
    fields.iter().for_each(|(_, field)| edited.append(field));
    Translated { message: (edited.header() != message.header()).then_some(edited), left_out }
}

fn begins_as(field: &FieldRef<'_>, beginnings: &[&str]) -> bool {
    beginnings.iter().any(|beginning| {
        field.name().get(..beginning.len()).is_some_and(|name| name.eq_ignore_ascii_case(beginning.as_bytes()))
    })
}

fn lower(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_ascii_lowercase()
}

/// RFC 6376 §3.5: `h=` lists names, separated by colons.
fn signs(field: &FieldRef<'_>, names: &[String]) -> bool {
    if !field.is("DKIM-Signature") {
        return false;
    }
    let value: String = lower(&field.unfolded()).split_ascii_whitespace().collect();
    let signed = value.split(';').find_map(|tag| tag.strip_prefix("h="));
    signed.is_some_and(|signed| signed.split(':').any(|name| names.iter().any(|known| known == name)))
}

/// Headers under construction.
struct Headers<'a> {
    message: &'a RawMessage,
    /// Name and value.
    fields: Vec<(String, String)>,
    /// By field; `None` if the application wrote something else there.
    objects: BTreeMap<&'static str, Option<Map<String, Value>>>,
    /// By field.
    lists: BTreeMap<&'static str, Vec<(String, String)>>,
}

impl Headers<'_> {
    /// False if the provider has no place for it.
    fn word(&mut self, word: HeaderSlot, text: &str) -> bool {
        match word.place {
            SlotForm::Field(name) => self.fields.push((name.to_owned(), text.to_owned())),
            SlotForm::Member { field, key, list } => {
                let Some(object) = self.object(field) else { return false };
                let value = Value::from(text);
                object.insert(key.to_owned(), if list { Value::from(vec![value]) } else { value });
            }
            SlotForm::Pair { field, key } => self.pair(field, key, text),
        }
        true
    }

    fn pairs(&mut self, pairs: MetadataSlot, marks: &Marks, left_out: &mut Vec<String>) {
        let mut taken = 0;
        let mut object = Map::new();
        for (name, value) in &marks.metadata {
            let name = name.as_str();
            let value = value.as_str();
            let mut fits = taken < pairs.most && pairs.names.admits(name) && pairs.values.admits(value);
            match pairs.place {
                _ if !fits => {}
                MetadataForm::FieldForEach(beginning) => {
                    self.fields.push((format!("{beginning}{name}"), value.to_owned()));
                }
                MetadataForm::List(field) => self.pair(field, name, value),
                MetadataForm::Object(_) | MetadataForm::Member { .. } => {
                    object.insert(name.to_owned(), value.into());
                    fits = json::to_ascii(&object).len() <= pairs.longest;
                    if !fits {
                        object.remove(name);
                    }
                }
            }
            if fits {
                taken += 1;
            } else {
                left_out.push(format!("metadata {name}"));
            }
        }
        match pairs.place {
            _ if object.is_empty() => {}
            MetadataForm::Member { field, key } => match self.object(field) {
                Some(all) => {
                    all.insert(key.to_owned(), Value::Object(object));
                }
                None => left_out.extend(object.keys().map(|name| format!("metadata {name}"))),
            },
            MetadataForm::Object(field) => {
                self.objects.insert(field, Some(object));
            }
            MetadataForm::FieldForEach(_) | MetadataForm::List(_) => {}
        }
    }

    /// Added unless the application has set it.
    fn setting(&mut self, setting: FixedSetting) {
        match setting {
            FixedSetting::Field { name, value } if !self.message.has(name) => {
                self.fields.push((name.to_owned(), value.to_owned()));
            }
            FixedSetting::Field { .. } => {}
            FixedSetting::Member { field, key, json } => {
                if let (Ok(value), Some(object)) = (serde_json::from_str::<Value>(json), self.object(field)) {
                    object.entry(key).or_insert(value);
                }
            }
        }
    }

    /// Starts with what the application wrote there. `None` if that cannot be read; it then stays as it is.
    fn object(&mut self, field: &'static str) -> Option<&mut Map<String, Value>> {
        let message = self.message;
        let begun = self.objects.entry(field).or_insert_with(|| match message.fields_named(field).next() {
            Some(own) => serde_json::from_slice(&own.unfolded()).ok(),
            None => Some(Map::new()),
        });
        begun.as_mut()
    }

    /// Starts with the application's own pairs.
    fn pair(&mut self, field: &'static str, name: &str, value: &str) {
        let message = self.message;
        let list = self.lists.entry(field).or_insert_with(|| {
            let own = message.fields_named(field).next().map(|own| own.unfolded()).unwrap_or_default();
            let own = String::from_utf8_lossy(&own).into_owned();
            let pairs = own.split(',').filter_map(|pair| pair.split_once('='));
            pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
        });
        list.retain(|(known, _)| known != name);
        list.push((name.to_owned(), value.to_owned()));
    }

    /// Returns names and fields. A value that cannot be folded into header lines is left out.
    fn finish(self, left_out: &mut Vec<String>) -> Vec<(String, Field)> {
        let objects = self.objects.into_iter().filter_map(|(name, object)| Some((name, object?)));
        let objects = objects.filter(|(_, object)| !object.is_empty());
        let objects = objects.map(|(name, object)| (name.to_owned(), json::to_ascii(&object)));
        let lists = self.lists.into_iter().map(|(name, pairs)| {
            let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
            (name.to_owned(), pairs.join(", "))
        });
        let mut fields = Vec::new();
        for (name, value) in self.fields.into_iter().chain(objects).chain(lists) {
            match Field::folded(&name, &value) {
                Ok(field) => fields.push((name, field)),
                Err(_) => left_out.push(name),
            }
        }
        fields
    }
}
