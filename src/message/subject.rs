//! The subject for lists, and to recognise equal mail: decoded, on one line, of bounded length. It decides nothing about how a
//! mail is sent.

use super::encoded_words;
use super::optional::{Skipped, attempt};
use super::raw::RawMessage;
use crate::text::cleaned;
use mail_parser::MessageParser;

/// In characters.
const MAX: usize = 200;

/// Empty if there is none. An unreadable subject is left out of lists and never costs the mail.
pub fn subject(message: &RawMessage) -> Result<String, Skipped> {
    attempt("subject", || Ok(decoded(message)))
}

fn decoded(message: &RawMessage) -> String {
    let Some(field) = message.fields_named("Subject").next() else { return String::new() };
    let certain = String::from_utf8(field.unfolded()).ok().and_then(|value| encoded_words::decode(&value));
    // What is not certain is better guessed than not shown.
    let subject = certain.unwrap_or_else(|| {
        let block = [field.raw(), b"\r\n"].concat();
        let parsed = MessageParser::new().parse_headers(&block);
        parsed.as_ref().and_then(|parsed| parsed.subject()).unwrap_or_default().to_owned()
    });
    cleaned(&subject.trim().chars().take(MAX).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let long = format!("Subject: {}\r\n", "x".repeat(500));
        for (header, expected) in [
            ("Subject: =?UTF-8?Q?gr=C3=BCn?=\r\n", "gr\u{fc}n"),
            ("Subject: =?UTF-8?Q?a=0D=0Ab?=\r\n", "a??b"),
            ("Subject: =?UTF-8?Q?a=E2=80=AEb?=\r\n", "a?b"),
            ("Subject: one\r\n two\r\nSubject: three\r\n", "one two"),
            ("Subject: =?ISO-2022-KR?B?GyQpQw5HUQ8=?= =?ISO-2022-KR?B?GyQpQw4xWw8=?=\r\n", "한글"),
            ("From: a@b\r\n", ""),
            ("Subject:\r\n", ""),
            (&long, &"x".repeat(200)),
        ] {
            let message = RawMessage::from_data(format!("{header}\r\nbody").into()).expect("a message");
            assert_eq!(subject(&message).as_deref(), Ok(expected), "{header:?}");
        }
    }
}
