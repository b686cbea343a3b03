//! `[repair]`: a switch for each step, from the list of steps. Nothing here names a step.

use super::input::Typed;
use super::problem::Place;
use super::reader::{Section, TableReader, absent};
use super::schema::{Presence, SettingSchema, TableSchema};
use crate::message::repair::{RepairStep, Repairs, STEPS};

#[derive(Debug, Clone)]
pub struct RepairTable {
    place: Place,
    switches: Vec<(&'static RepairStep, Typed<bool>)>,
}

const ON: Presence = Presence::Default("true");

const SWITCHES: [SettingSchema; STEPS.len()] = {
    const UNNAMED: SettingSchema = SettingSchema { key: "", doc: &[], presence: ON, secret: false };
    let mut switches = [UNNAMED; STEPS.len()];
    let mut at = 0;
    while at < STEPS.len() {
        switches[at] = SettingSchema { key: STEPS[at].name, doc: STEPS[at].doc, ..UNNAMED };
        at += 1;
    }
    switches
};

impl Section for RepairTable {
    const TABLE: &'static TableSchema = &TableSchema {
        name: "repair",
        many: false,
        doc: &[
            "What is repaired in each message before it is signed. Every step leaves sound content alone, and",
            "everything that is signed or encrypted. docs/deliverability.md shows what each is worth.",
        ],
        settings: &SWITCHES,
    };

    fn read(table: &mut TableReader<'_, '_>) -> Self {
        let switches = STEPS.iter().map(|step| (step, table.read(step.name))).collect();
        Self { place: table.place(), switches }
    }

    fn empty(place: Place) -> Self {
        let switches = STEPS.iter().map(|step| (step, absent(ON, place.clone()))).collect();
        Self { place, switches }
    }

    fn place(&self) -> &Place {
        &self.place
    }
}

impl RepairTable {
    /// `None` after a problem.
    pub fn repairs(&self) -> Option<Repairs> {
        if self.switches.iter().any(|(_, typed)| typed.value.is_none()) {
            return None;
        }
        let is_on = |step: &RepairStep| {
            self.switches.iter().any(|(switch, typed)| switch.name == step.name && typed.value == Some(true))
        };
        Some(Repairs::of(is_on))
    }
}
