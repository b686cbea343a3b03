//! Bounces: the report that mail could not be delivered, for people and for programs.
//!
//! Seven-bit throughout, whatever the failed mail and the provider's replies contain. The body of the failed mail is
//! never included, since the report may go to someone other than its sender. RFC 3461 §6, RFC 3464, RFC 3834, RFC 6522,
//! RFC 6533.

use super::accepted::Accepted;
use super::headers::{Field, FieldError};
use super::id::MailId;
use super::outcome::{Cause, Reason};
use super::raw::{RawError, RawMessage};
use super::trace::rfc5322_date;
use crate::smtp::{EnhancedCode, Mailbox};
use crate::text::cleaned;
use jiff::Timestamp;
use mail_builder::encoders::QuotedPrintableEncoder;
use mail_parser::{MessageParser, MimeHeaders};
use std::fmt::Write as _;

/// Octets of the failed mail's header that are included.
const MAX_RETURNED: usize = 32 * 1024;

/// The maximum size in octets of a word, which cannot be folded: with its field's name it fits a line of 998 (RFC 5322
/// §2.1.1).
const MAX_WORD: usize = 900;

/// One recipient that did not get the mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedRecipient {
    pub recipient: Mailbox,
    /// RFC 3463.
    pub status: EnhancedCode,
    /// The provider's own reply, if a reply decided.
    pub reply: Option<String>,
    /// An explanation for people.
    pub text: String,
}

impl FailedRecipient {
    pub fn new(recipient: &Mailbox, reason: &Reason) -> Self {
        let status = match &reason.cause {
            Cause::Reply(reply) => reply.enhanced().unwrap_or(EnhancedCode::new(5, 0, 0)),
            Cause::Local { enhanced, .. } => *enhanced,
            Cause::TimedOut | Cause::Network(_) | Cause::Unavailable(_) | Cause::Stopping => EnhancedCode::new(4, 4, 0),
        };
        let reply = reason.reply().map(ToString::to_string);
        Self { recipient: recipient.clone(), status, reply, text: reason.to_string() }
    }

    /// The mail expired; `text` says so. RFC 3463 §3.5: X.4.7, delivery time expired.
    pub fn expired(recipient: &Mailbox, reason: &Reason, text: String) -> Self {
        Self { status: EnhancedCode::new(4, 4, 7), text, ..Self::new(recipient, reason) }
    }
}

/// The contents of a bounce.
#[derive(Debug, Clone)]
pub struct BounceReport<'a> {
    /// The id of the report itself.
    pub id: MailId,
    pub now: Timestamp,
    /// The gateway's hostname.
    pub hostname: &'a str,
    /// For example "MAILER-DAEMON@example.com".
    pub from: &'a Mailbox,
    pub to: &'a Mailbox,
    pub failed: &'a Accepted,
    pub failures: &'a [FailedRecipient],
}

/// Whether this is the header of a delivery report, from this gateway or any other server: such mail must not be answered
/// by another report, even if its envelope has a sender. RFC 3464 §2, RFC 6522 §3.
pub fn is_delivery_report(header: &[u8]) -> bool {
    let parsed = MessageParser::new().parse_headers(header);
    let content_type = parsed.as_ref().and_then(|parsed| parsed.content_type());
    content_type.is_some_and(|of| {
        of.ctype().eq_ignore_ascii_case("multipart")
            && of.subtype().is_some_and(|subtype| subtype.eq_ignore_ascii_case("report"))
            && of.attribute("report-type").is_some_and(|kind| kind.eq_ignore_ascii_case("delivery-status"))
    })
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error(transparent)]
    Raw(#[from] RawError),
}

impl BounceReport<'_> {
    pub fn message(&self) -> Result<RawMessage, ReportError> {
        let boundary = format!("report-{}", self.id);
        let mut data = self.header(&boundary)?;
        data.extend_from_slice(b"\r\nThis is a report in MIME format about mail that could not be delivered.\r\n");
        let mut part = |content_type: &str, encoding: &str, content: &[u8]| {
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
            );
            data.extend_from_slice(head.as_bytes());
            data.extend_from_slice(content);
        };
        part("text/plain; charset=utf-8", "quoted-printable", &quoted_printable(self.notice().as_bytes()));
        part("message/delivery-status", "7bit", self.status().as_bytes());
        let returned = whole_lines(self.failed.message.header(), MAX_RETURNED);
        part("text/rfc822-headers", "quoted-printable", &quoted_printable(returned));
        data.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        Ok(RawMessage::from_data(data.into())?)
    }

    fn header(&self, boundary: &str) -> Result<Vec<u8>, FieldError> {
        let host = self.from.domain();
        let fields = [
            Field::new("From", &["Mail Delivery System", &format!("<{}>", self.from)])?,
            Field::new("To", &[&format!("<{}>", self.to)])?,
            Field::new("Subject", &["Mail could not be delivered"])?,
            Field::new("Date", &[&rfc5322_date(self.now)])?,
            Field::new("Message-ID", &[&format!("<{}@{host}>", self.id)])?,
            // RFC 3834 §5: prevents vacation notices in reply.
            Field::new("Auto-Submitted", &["auto-replied"])?,
            Field::new("MIME-Version", &["1.0"])?,
            Field::new(
                "Content-Type",
                &["multipart/report;", "report-type=delivery-status;", &format!("boundary=\"{boundary}\"")],
            )?,
        ];
        Ok(fields.iter().flat_map(|field| field.as_bytes().to_vec()).collect())
    }

    /// The part for people.
    fn notice(&self) -> String {
        let failed = self.failed;
        let mut text = format!(
            "This is the mail gateway {}.\r\n\r\nA mail of {} from <{}> could not be delivered to:\r\n",
            self.hostname,
            rfc5322_date(failed.received_at),
            failed.envelope.sender
        );
        for failure in self.failures {
            let _to_a_string = write!(text, "\r\n  <{}>\r\n    {}\r\n", failure.recipient, cleaned(&failure.text));
        }
        let _to_a_string = write!(
            text,
            "\r\nThe gateway keeps the mail for a while under the name {id}. Its operator can see it with\r\n\
             `waxseal queue show {id}`, and send it again with `waxseal queue retry {id}`.\r\n",
            id = failed.id
        );
        text
    }

    /// RFC 3464 §2: one block for the message, one for each recipient.
    fn status(&self) -> String {
        let mut text = format!(
            "Reporting-MTA: dns; {}\r\nX-Waxseal-Id: {}\r\nArrival-Date: {}\r\n",
            ascii(self.hostname),
            self.failed.id,
            rfc5322_date(self.failed.received_at)
        );
        for failure in self.failures {
            let _to_a_string = write!(
                text,
                "\r\nFinal-Recipient: {}\r\nAction: failed\r\nStatus: {}\r\nLast-Attempt-Date: {}\r\n",
                address(&failure.recipient),
                failure.status,
                rfc5322_date(self.now)
            );
            let diagnostic = match &failure.reply {
                Some(reply) => format!("smtp; {}", ascii(reply)),
                None => format!("x-waxseal; {}", ascii(&failure.text)),
            };
            text.push_str(&folded("Diagnostic-Code", &diagnostic));
        }
        text
    }
}

/// RFC 6533 §3: in seven bits, non-ASCII characters are written as `\x{...}`. An address that is too long for a line is
/// cut; the part for people has the whole address.
fn address(mailbox: &Mailbox) -> String {
    if !mailbox.is_internationalized() {
        return format!("rfc822; {mailbox}");
    }
    let mut text = "utf-8; ".to_owned();
    for character in mailbox.to_string().chars() {
        if text.len() >= MAX_WORD {
            break;
        }
        match character {
            '\\' | '+' | '=' => text.push_str(&format!("\\x{{{:X}}}", u32::from(character))),
            character if character.is_ascii_graphic() => text.push(character),
            character => text.push_str(&format!("\\x{{{:X}}}", u32::from(character))),
        }
    }
    text
}

fn ascii(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// Folds a long line at its spaces; a word that is too long for a line is cut.
fn folded(name: &str, value: &str) -> String {
    let words: Vec<&str> = value.split(' ').map(|word| word.get(..MAX_WORD).unwrap_or(word)).collect();
    match Field::new(name, &words) {
        Ok(field) => String::from_utf8_lossy(field.as_bytes()).into_owned(),
        Err(_) => String::new(),
    }
}

fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(text.len() + text.len() / 8);
    QuotedPrintableEncoder::new().preserve_line_breaks().encode_into(text, &mut encoded);
    encoded
}

fn whole_lines(text: &[u8], limit: usize) -> &[u8] {
    match text.get(..limit) {
        Some(cut) => &cut[..memchr::memrchr(b'\n', cut).map_or(0, |end| end + 1)],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::accepted::Origin;
    use crate::message::outcome::RelayStep;
    use crate::message::{Author, Envelope, Marks};
    use crate::smtp::{Reply, ReversePath};

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).expect("an address")
    }

    fn now() -> Timestamp {
        "2026-11-24T03:05:09Z".parse().expect("a time")
    }

    fn failed() -> Accepted {
        let data = "From: a@example.com\r\nSubject: gr\u{fc}n\r\nX-Secret-Header: shown\r\n\r\nbody-canary\r\n";
        let message = RawMessage::from_data(data.into()).expect("a message");
        let author = Author::of(&message).ok();
        let envelope = Envelope::new(ReversePath::Mailbox(mailbox("a@example.com")));
        let origin = Origin::default();
        let marks = Marks::default();
        Accepted { id: MailId::new(now(), 1), received_at: now(), origin, envelope, message, author, marks }
    }

    fn report(failures: &[FailedRecipient]) -> RawMessage {
        report_of(&failed(), "gw.example.com", "a@example.com", failures)
    }

    fn report_of(failed: &Accepted, hostname: &str, to: &str, failures: &[FailedRecipient]) -> RawMessage {
        let from = mailbox("MAILER-DAEMON@example.com");
        let to = mailbox(to);
        let report =
            BounceReport { id: MailId::new(now(), 2), now: now(), hostname, from: &from, to: &to, failed, failures };
        report.message().expect("a report")
    }

    fn refused(recipient: &str, reply: Reply) -> FailedRecipient {
        FailedRecipient::new(&mailbox(recipient), &Reason::new(Some("company"), RelayStep::Rcpt, Cause::Reply(reply)))
    }

    #[test]
    fn a_reader_of_mime_finds_three_parts_and_no_body() {
        let reply = Reply::new(550, EnhancedCode::new(5, 1, 1), "no such \u{fc}ser");
        let late = Reason::new(Some("company"), RelayStep::Connect, Cause::TimedOut);
        let late =
            FailedRecipient::expired(&mailbox("x@example.org"), &late, "expired after 5 days: no answer".to_owned());
        let report = report(&[refused("you@example.net", reply), late]);
        let bytes = report.to_bytes();
        assert!(bytes.is_ascii() && bytes.split(|&b| b == b'\n').all(|line| line.len() < 999));
        let text = String::from_utf8(bytes.clone()).expect("ASCII");
        assert!(!text.contains("body-canary") && !text.contains("\n\n"), "{text}");
        let parsed = MessageParser::new().parse(&bytes).expect("a message");
        let types: Vec<_> = parsed.parts.iter().filter_map(|part| part.content_type()).collect();
        let types: Vec<_> =
            types.iter().map(|of| format!("{}/{}", of.ctype(), of.subtype().unwrap_or_default())).collect();
        assert_eq!(types, ["multipart/report", "text/plain", "message/delivery-status", "text/rfc822-headers"]);
        assert_eq!(parsed.content_type().and_then(|of| of.attribute("report-type")), Some("delivery-status"));
        let notice = parsed.body_text(0).expect("a text");
        assert!(notice.contains("<you@example.net>") && notice.contains("no such \u{fc}ser"), "{notice}");
        assert!(notice.contains("waxseal queue retry"), "{notice}");
        for line in [
            "Final-Recipient: rfc822; you@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n",
            "Diagnostic-Code: smtp; 550 5.1.1 no such ?ser\r\n",
            "Final-Recipient: rfc822; x@example.org\r\nAction: failed\r\nStatus: 4.4.7\r\n",
            "Diagnostic-Code: x-waxseal; expired after 5 days: no answer\r\n",
            "Auto-Submitted: auto-replied\r\n",
            "X-Secret-Header: shown\r\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert_eq!(
            Author::of(&report).map(|author| author.mailbox().to_string()).as_deref(),
            Ok("MAILER-DAEMON@example.com")
        );
    }

    #[test]
    fn a_delivery_report_is_known_by_its_content_type() {
        assert!(is_delivery_report(report(&[]).header()));
        for (content_type, expected) in [
            ("multipart/report; report-type=delivery-status; boundary=b", true),
            ("Multipart/Report; boundary=\"b\";\r\n\tReport-Type=\"Delivery-Status\"", true),
            ("multipart/report; report-type=disposition-notification; boundary=b", false),
            ("multipart/report; boundary=b", false),
            ("multipart/mixed; report-type=delivery-status; boundary=b", false),
            ("text/plain", false),
        ] {
            let header =
                format!("From: a@example.com\r\nContent-Type: {content_type}\r\nAuto-Submitted: auto-replied\r\n\r\n");
            assert_eq!(is_delivery_report(header.as_bytes()), expected, "{content_type}");
        }
        assert!(!is_delivery_report(b"") && !is_delivery_report(b"From: a@example.com\r\n"));
    }

    #[test]
    fn addresses_beyond_ascii_are_spelled_out() {
        assert_eq!(address(&mailbox("gr\u{fc}n@example.net")), "utf-8; gr\\x{FC}n@example.net");
        assert_eq!(address(&mailbox("a+b@example.net")), "rfc822; a+b@example.net");
    }

    #[test]
    fn long_words_and_long_headers_are_cut() {
        let long = refused("you@example.net", Reply::new(550, EnhancedCode::new(5, 0, 0), "x".repeat(5000)));
        let text = String::from_utf8(report(&[long]).to_bytes()).expect("ASCII");
        assert!(text.contains("Diagnostic-Code: smtp;") && text.lines().all(|line| line.len() <= 998));
        assert_eq!(whole_lines(b"a\r\nbcd\r\n", 6), b"a\r\n");
        assert_eq!(whole_lines(b"abc", 2), b"");
    }

    /// The fully escaped address of a recipient made a line of 1,067 octets.
    #[test]
    fn no_line_is_longer_than_998_octets_whatever_the_parts_are_made_of() {
        let labels = |letter: &str, octets: usize| {
            let label = letter.repeat(60 / letter.len());
            vec![label; octets / 61].join(".")
        };
        let long = [
            format!("{}@{}", "a".repeat(64), labels("b", 189)),
            format!("{}@{}", "+".repeat(64), labels("\u{101}", 189)),
            format!("{}@{}", "=".repeat(64), labels("\u{4e2d}", 189)),
            format!("{}@{}", "\u{1f600}".repeat(16), labels("\u{fc}", 189)),
            format!("\"{}\"@{}", "x y ".repeat(15), labels("\u{1f600}", 189)),
        ];
        for text in ["", "x", "\u{fc}", "x ", "\t", "\u{2028}"] {
            let text = text.repeat(3_000 / text.len().max(1));
            let failures = long.each_ref().map(|address| FailedRecipient {
                recipient: mailbox(address),
                status: EnhancedCode::new(5, 1, 1),
                reply: address.starts_with('a').then(|| text.clone()),
                text: text.clone(),
            });
            let mut failed = failed();
            let header = format!("Subject: {text}\r\nFrom: a@example.com\r\nX-Long: {}", "y".repeat(40_000));
            failed.message = RawMessage::from_parts(header.into_bytes(), "\r\nHello.\r\n".into());
            for sender in &long {
                failed.envelope.sender = ReversePath::Mailbox(mailbox(sender));
                let report = report_of(&failed, &"h".repeat(255), sender, &failures).to_bytes();
                let longest = report.split(|&octet| octet == b'\n').max_by_key(|line| line.len()).unwrap_or_default();
                // Including its CR.
                assert!(longest.len() <= 999, "{} octets: {}", longest.len(), longest.escape_ascii());
            }
        }
    }
}
