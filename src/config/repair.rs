//! `[repair]`: a switch for each step in the list of steps. Nothing here names a step.

use super::input::{Reported, Resolved, Typed};
use super::problem::Place;
use super::reader::{Section, TableReader, absent};
use super::schema::{Presence, SettingSchema, TableSchema};
use super::value::Value;
use crate::message::repair::{RepairStep, Repairs, STEPS};

#[derive(Debug, Clone)]
pub struct RepairTable {
    place: Place,
    switches: Vec<(&'static RepairStep, Typed<bool>)>,
}

const ON: Presence = Presence::Default("true");

const SWITCHES: [SettingSchema; STEPS.len()] = {
    const UNNAMED: SettingSchema =
        SettingSchema { key: "", doc: &[], presence: ON, secret: false, expected: <bool as Value>::expected };
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
            "Applications write mail that spam filters penalise and mail programs display wrongly. Every step leaves alone what is",
            "correct, signed or encrypted, and each can be turned off. docs/deliverability.md says what they are worth.",
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
    pub fn repairs(&self) -> Resolved<Repairs> {
        if self.switches.iter().any(|(_, typed)| typed.value().is_none()) {
            return Err(Reported);
        }
        let is_on = |step: &RepairStep| {
            self.switches.iter().any(|(switch, typed)| switch.name == step.name && typed.value() == Some(&true))
        };
        Ok(Repairs::of(is_on))
    }
}
