//! The trace: Received fields, added and counted. RFC 5321 §4.4, §6.3.

use super::headers::Field;
use super::id::MailId;
use super::raw::RawMessage;
use crate::smtp::EhloName;
use std::net::IpAddr;

/// RFC 5321 §6.3: a large number of Received fields means a loop.
pub const MAX_RECEIVED: usize = 50;

pub fn is_looping(message: &RawMessage) -> bool {
    message.fields_named("Received").count() > MAX_RECEIVED
}

/// What the gateway's own Received field contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReceivedDetail {
    #[default]
    Full,
    /// Without the application's address and the name that it gave.
    WithoutClient,
    /// There is none.
    Off,
}

/// Where a message came from, for its Received field.
#[derive(Debug, Clone)]
pub struct Trace<'a> {
    pub ehlo: &'a EhloName,
    pub client: IpAddr,
    /// The gateway's hostname.
    pub by: &'a str,
    /// "ESMTP", "ESMTPS", "ESMTPSA", … RFC 3848.
    pub protocol: &'a str,
    pub id: MailId,
    pub detail: ReceivedDetail,
}

/// RFC 5321 §4.4. Never names the recipient, because it could be a blind copy.
pub fn add_received(message: &mut RawMessage, trace: &Trace<'_>, now: jiff::Timestamp) {
    let literal = match trace.client.to_canonical() {
        IpAddr::V4(address) => format!("([{address}])"),
        IpAddr::V6(address) => format!("([IPv6:{address}])"),
    };
    let from = format!("from {} {literal}", trace.ehlo.as_str());
    let by = format!("by {} with {} id {};", trace.by, trace.protocol, trace.id);
    let date = rfc5322_date(now);
    let words: &[&str] = match trace.detail {
        ReceivedDetail::Full => &[&from, &by, &date],
        ReceivedDetail::WithoutClient => &[&by, &date],
        ReceivedDetail::Off => return,
    };
    if let Ok(field) = Field::new("Received", words) {
        message.prepend(&field);
    }
}

/// RFC 5322 §3.3, always in UTC, so as not to reveal the gateway's time zone.
pub fn rfc5322_date(now: jiff::Timestamp) -> String {
    now.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_says_what_it_is_asked_to_say() {
        let now = "2026-11-24T03:05:09Z".parse().expect("a time");
        let ehlo = EhloName::parse(b"example.com>").expect("a name");
        let id = MailId::new(now, 7);
        let client = "::1".parse().expect("an address");
        let by = format!("by gw with ESMTPSA id {id};");
        let date = "Tue, 24 Nov 2026 03:05:09 +0000\r\n";
        for (detail, added) in [
            (ReceivedDetail::Full, format!("Received: from example.com> ([IPv6:::1])\r\n\t{by} {date}")),
            (ReceivedDetail::WithoutClient, format!("Received: {by}\r\n\t{date}")),
            (ReceivedDetail::Off, String::new()),
        ] {
            let mut message = RawMessage::from_data("A: 1\r\n\r\n".into()).expect("a message");
            let trace = Trace { ehlo: &ehlo, client, by: "gw", protocol: "ESMTPSA", id, detail };
            add_received(&mut message, &trace, now);
            assert_eq!(String::from_utf8_lossy(message.header()), format!("{added}A: 1\r\n"));
        }
    }
}
