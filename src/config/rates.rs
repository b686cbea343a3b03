//! `rate`: one rate, or a list of several, all of which apply.

use super::value::{Complaint, Complaints, Text, Value};
use crate::rate::{Rate, RateError};
use toml::Spanned;
use toml::de::DeValue;

/// No two have the same period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rates(pub Vec<Rate>);

impl Text for Rate {
    const EXPECTED: &'static str = "a rate such as \"14/s\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        Self::parse(text).map_err(|error| {
            let message = format!("\"{text}\" is not a rate: {error}");
            let number = text.split_once('/').map_or(text, |(number, _)| number).trim();
            match (error, number.parse::<u32>()) {
                (RateError::InvalidNumber(_), _) | (_, Err(_)) => {
                    Complaint::new(message, "write a whole number and a period, as in \"14/s\" or \"50000/day\"")
                }
                (_, Ok(number)) => Complaint::new(
                    message,
                    format!("write \"{number}/s\", \"{number}/min\", \"{number}/h\" or \"{number}/day\""),
                ),
            }
        })
    }

    fn instead_of_number(number: &str) -> Option<String> {
        Some(format!("say for how long: \"{number}/s\", \"{number}/min\", \"{number}/h\" or \"{number}/day\""))
    }
}

impl Rates {
    /// Reads a variable: rates between commas.
    pub fn of_variable(text: &str) -> Result<Self, Complaint> {
        let mut rates = Self(Vec::new());
        for rate in text.split(',').map(str::trim).filter(|rate| !rate.is_empty()) {
            rates.add(<Rate as Text>::parse(rate)?)?;
        }
        Ok(rates)
    }

    fn add(&mut self, rate: Rate) -> Result<(), Complaint> {
        if let Some(known) = self.0.iter().find(|known| known.period() == rate.period()) {
            let lower = if known.units() < rate.units() { *known } else { rate };
            let message = format!("{rate} stands beside {known}");
            return Err(Complaint::new(message, format!("keep the one that counts, {lower}")));
        }
        self.0.push(rate);
        Ok(())
    }
}

impl Value for Rates {
    fn expected() -> String {
        format!("{}, or a list of them", Rate::EXPECTED)
    }

    fn read(value: &Spanned<DeValue<'_>>, complaints: &mut Complaints<'_>) -> Option<Self> {
        let DeValue::Array(items) = value.get_ref() else {
            return <Rate as Value>::read(value, complaints).map(|rate| Self(vec![rate]));
        };
        let mut rates = Self(Vec::new());
        let mut all_right = true;
        for item in items {
            let added = match <Rate as Value>::read(item, complaints) {
                Some(rate) => rates.add(rate).map_err(|complaint| complaints.bad_value(item.span(), complaint)),
                None => Err(()),
            };
            all_right &= added.is_ok();
        }
        all_right.then_some(rates)
    }
}
