//! Takes apart what servers answer. What is missing or of another kind is an empty value; callers say what that means.

use bytes::Bytes;
use redis::Value;
use std::str::FromStr;

/// The octets of an answer; `None`: there is no such value.
pub(super) fn octets(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(octets) => Some(octets.into()),
        Value::SimpleString(text) => Some(text.into()),
        Value::VerbatimString { text, .. } => Some(text.into()),
        Value::Int(number) => Some(number.to_string().into()),
        _ => None,
    }
}

pub(super) fn text(value: Value) -> Option<String> {
    String::from_utf8(octets(value)?.to_vec()).ok()
}

pub(super) fn number<T: FromStr>(value: Value) -> Option<T> {
    text(value)?.parse().ok()
}

/// The elements of a list.
pub(super) fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        _ => Vec::new(),
    }
}

/// The texts of a list.
pub(super) fn texts(value: Value) -> Vec<String> {
    list(value).into_iter().filter_map(text).collect()
}

/// The members of a sorted set with their scores.
pub(super) fn scored(value: Value) -> Vec<(String, i64)> {
    let mut found = Vec::new();
    let mut values = list(value).into_iter();
    while let (Some(member), Some(score)) = (values.next(), values.next()) {
        found.extend(text(member).zip(number(score)));
    }
    found
}
