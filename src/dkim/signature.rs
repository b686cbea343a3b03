//! The text of a DKIM-Signature field, folded.
//!
//! Written here and not by mail-auth, whose text may end in white space and a semicolon after `b=`: RFC 6376 §3.7
//! treats that as part of the signature, dkimpy does not. Here nothing follows `b=`, as in most signers' fields.

use super::key::SigningKey;
use base64::{Engine, engine::general_purpose::STANDARD};

pub(super) const NAME: &str = "DKIM-Signature";
/// RFC 5322 §2.1.1, minus the CRLF.
const MAX_LINE: usize = 78;

/// A field under construction, up to and including "b=".
pub(super) struct SignatureField {
    text: String,
    /// Columns of the last line.
    column: usize,
}

impl SignatureField {
    /// `names` in the order in which the fields were hashed; `time` in seconds since 1970.
    pub(super) fn new(key: &SigningKey, names: &[&str], body_hash: &[u8], time: u64) -> Self {
        let mut field = Self { text: format!("{NAME}:"), column: NAME.len() + 1 };
        field.push(" ", "v=1;");
        field.push(" ", &format!("a={};", key.algorithm()));
        field.push(" ", "c=relaxed/relaxed;");
        field.push(" ", &format!("d={};", key.domain()));
        field.push(" ", &format!("s={};", key.selector()));
        field.push(" ", &format!("t={time};"));
        for (at, name) in names.iter().enumerate() {
            let start = if at == 0 { "h=" } else { "" };
            let end = if at + 1 == names.len() { ";" } else { ":" };
            field.push(if at == 0 { " " } else { "" }, &format!("{start}{name}{end}"));
        }
        field.push(" ", &format!("bh={};", STANDARD.encode(body_hash)));
        field.push(" ", "b=");
        field
    }

    fn push(&mut self, glue: &str, word: &str) {
        if self.column + glue.len() + word.len() > MAX_LINE {
            self.fold();
        } else {
            self.text.push_str(glue);
            self.column += glue.len();
        }
        self.text.push_str(word);
        self.column += word.len();
    }

    fn fold(&mut self) {
        self.text.push_str("\r\n\t");
        self.column = 1;
    }

    /// The text after the colon: signed with an empty `b=` and without a CRLF. RFC 6376 §3.7.
    pub(super) fn value(&self) -> &[u8] {
        &self.text.as_bytes()[NAME.len() + 1..]
    }

    /// The whole field with its CRLF.
    pub(super) fn complete(mut self, signature: &[u8]) -> String {
        let base64 = STANDARD.encode(signature);
        let mut rest = base64.as_str();
        while !rest.is_empty() {
            if self.column >= MAX_LINE {
                self.fold();
            }
            let (line, left) = rest.split_at(rest.len().min(MAX_LINE - self.column));
            self.text.push_str(line);
            self.column += line.len();
            rest = left;
        }
        self.text.push_str("\r\n");
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dkim::Selector;
    use crate::smtp::Domain;

    fn field(selector: &str, names: &[&str]) -> SignatureField {
        let domain = Domain::parse("example.com").expect("a domain");
        let selector = Selector::parse(selector).expect("a selector");
        let pem = include_bytes!("testdata/ed25519.pem");
        SignatureField::new(
            &SigningKey::from_pem(domain, selector, pem).expect("a key"),
            names,
            &[7; 32],
            1_700_000_000,
        )
    }

    #[test]
    fn it_is_folded_between_words() {
        let names = ["From", "From", "Subject", "Subject", "Content-Type", "Content-Transfer-Encoding"];
        assert_eq!(
            field("wax1", &names).complete(&[9; 64]),
            "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.com;\r\n\
             \ts=wax1; t=1700000000; h=From:From:Subject:Subject:Content-Type:\r\n\
             \tContent-Transfer-Encoding; bh=BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=;\r\n\
             \tb=CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk\r\n\
             \tJCQkJCQkJCQ==\r\n"
        );
    }

    #[test]
    fn no_line_is_too_long_wherever_the_folds_fall() {
        for selector in (1..60).map(|length| "s".repeat(length)) {
            for count in 1..30 {
                let whole = field(&selector, &vec!["Subject"; count]).complete(&[9; 512]);
                assert!(
                    whole.ends_with("k=\r\n") || whole.ends_with("Q=\r\n") || whole.ends_with("CQkJ\r\n"),
                    "{whole}"
                );
                assert!(whole.split("\r\n").all(|line| line.len() <= MAX_LINE && line.trim_end() == line), "{whole}");
            }
        }
    }
}
