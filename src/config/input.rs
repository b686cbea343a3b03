//! What was typed for one setting, and where; and the result of resolving it.

use super::problem::Place;

/// What was typed for one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<T> {
    /// Not typed, and without a default. If the setting is required, that has been reported.
    Absent,
    Default(T),
    Given(T),
    /// Typed, but not valid, which has been reported.
    Invalid,
}

/// An input with its place.
#[derive(Debug, Clone)]
pub struct Typed<T> {
    pub input: Input<T>,
    /// The value, or the table's head if nothing was typed.
    pub place: Place,
}

/// There is no value, because of a problem that has been reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reported;

/// The result of resolving settings.
pub type Resolved<T> = Result<T, Reported>;

impl<T> Typed<T> {
    pub fn given(value: T, place: Place) -> Self {
        Self { input: Input::Given(value), place }
    }

    pub fn absent(default: Option<T>, table: Place) -> Self {
        Self { input: default.map_or(Input::Absent, Input::Default), place: table }
    }

    pub fn invalid(place: Place) -> Self {
        Self { input: Input::Invalid, place }
    }

    /// The key was typed, with a valid value or not.
    pub fn is_given(&self) -> bool {
        matches!(self.input, Input::Given(_) | Input::Invalid)
    }

    /// The typed value or the default. `None` also after a problem: for checks that skip invalid values.
    pub fn value(&self) -> Option<&T> {
        match &self.input {
            Input::Default(value) | Input::Given(value) => Some(value),
            Input::Absent | Input::Invalid => None,
        }
    }

    /// Makes a default count as if it had been typed.
    pub fn mark_given(&mut self) {
        self.input = match std::mem::replace(&mut self.input, Input::Invalid) {
            Input::Default(value) => Input::Given(value),
            other => other,
        };
    }

    pub fn map<V>(self, convert: impl FnOnce(T) -> V) -> Typed<V> {
        let input = match self.input {
            Input::Absent => Input::Absent,
            Input::Default(value) => Input::Default(convert(value)),
            Input::Given(value) => Input::Given(convert(value)),
            Input::Invalid => Input::Invalid,
        };
        Typed { input, place: self.place }
    }
}

impl<T: Clone> Typed<T> {
    /// For a setting that always has a value.
    pub fn get(&self) -> Resolved<T> {
        self.value().cloned().ok_or(Reported)
    }

    /// For a setting that may be left out.
    pub fn optional(&self) -> Resolved<Option<T>> {
        match &self.input {
            Input::Absent => Ok(None),
            Input::Default(value) | Input::Given(value) => Ok(Some(value.clone())),
            Input::Invalid => Err(Reported),
        }
    }
}
