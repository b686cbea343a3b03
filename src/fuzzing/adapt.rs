//! A message of arbitrary octets, finalised for every provider: ASCII where required, or a reason; one header in one
//! place; no mark breaks out of its field.

use crate::message::adapt::{to_seven_bit, translate, with_ascii_texts};
use crate::message::lines::first_long_line;
use crate::message::{Mark, Marks, RawMessage};
use crate::relay::provider;
use crate::smtp::dot::has_only_crlf;

pub(super) fn check_adapt(value: &str, message: &RawMessage, check_split: impl Fn(&RawMessage)) {
    let of_seven = to_seven_bit(message).ok().flatten();
    for converted in of_seven.iter().chain(&with_ascii_texts(message)) {
        assert!(has_only_crlf(converted.header()) && has_only_crlf(converted.body()));
        check_lines(message, converted);
        check_split(converted);
    }
    if let Some(converted) = of_seven {
        assert!(converted.to_bytes().is_ascii());
        assert_eq!(to_seven_bit(&converted), Ok(None));
    }
    let mark = Mark::new(value).ok();
    let metadata = mark.iter().map(|mark| (mark.clone(), mark.clone())).collect();
    let marks = Marks { tag: mark.clone(), stream: mark.clone(), ip_pool: mark, metadata, upstream: None };
    for preset in provider::ALL {
        let translated = translate(message, &marks, &preset.vocabulary, provider::HEADERS).message;
        if let Some(translated) = translated {
            assert_eq!(translated.body(), message.body());
            assert!(has_only_crlf(translated.header()));
            check_lines(message, &translated);
            check_split(&translated);
            let again = translate(&translated, &marks, &preset.vocabulary, provider::HEADERS).message;
            let again = again.unwrap_or_else(|| translated.clone());
            assert_eq!(again.header().len(), translated.header().len(), "{}: twice is once", preset.name);
        }
    }
}

/// Intake accepts none, and none is created later.
fn check_lines(before: &RawMessage, after: &RawMessage) {
    if first_long_line(before).is_none() {
        assert_eq!(first_long_line(after), None, "{}", after.header().escape_ascii());
    }
}
