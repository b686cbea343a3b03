//! What was typed for one setting, and where.

use super::problem::Place;

/// What was typed for one setting.
#[derive(Debug, Clone)]
pub struct Typed<T> {
    /// `None` if the key is absent and has no default, or if its value was wrong, which has been reported.
    pub value: Option<T>,
    /// The value, or the table's head if the key is absent.
    pub place: Place,
    /// The key is there, right or wrong.
    pub given: bool,
}

impl<T> Typed<T> {
    pub fn given(value: T, place: Place) -> Self {
        Self { value: Some(value), place, given: true }
    }

    pub fn absent(default: Option<T>, table: Place) -> Self {
        Self { value: default, place: table, given: false }
    }

    pub fn wrong(place: Place) -> Self {
        Self { value: None, place, given: true }
    }
}
