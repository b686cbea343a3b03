//! The trace to which an application's mail belongs, as its Traceparent header says (W3C Trace Context §3.2, which
//! Grafana and others send). For the log only: a header that is not valid is ignored.

use super::headers::Fields;

const TRACE: usize = 32;
const PARENT: usize = 16;

/// The trace's identifier: 32 lower-case hexadecimal digits. `block`: whole fields.
pub fn trace_id(block: &[u8]) -> Option<String> {
    let mut fields = Fields::new(block).filter(|field| field.is("Traceparent"));
    let field = fields.next()?;
    // Two of them say two things.
    if fields.next().is_some() {
        return None;
    }
    let value = field.unfolded();
    let text = std::str::from_utf8(&value).ok()?.trim();
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_whole = is_hex(version, 2) && is_hex(trace, TRACE) && is_hex(parent, PARENT) && is_hex(flags, 2);
    let is_known = match version {
        "ff" => false,
        "00" => parts.next().is_none(),
        // A later version may say more.
        _ => true,
    };
    let is_any = |digits: &str| digits.bytes().any(|digit| digit != b'0');
    (is_whole && is_known && is_any(trace) && is_any(parent)).then(|| trace.to_owned())
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_standard_allows_is_a_trace() {
        const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (value, is_valid) in [
            (format!("00-{TRACE_ID}-00f067aa0ba902b7-01"), true),
            (format!(" 00-{TRACE_ID}-00f067aa0ba902b7-00 "), true),
            (format!("\r\n 00-{TRACE_ID}-00f067aa0ba902b7-01"), true),
            (format!("01-{TRACE_ID}-00f067aa0ba902b7-01-more"), true),
            (format!("00-{TRACE_ID}-00f067aa0ba902b7-01-more"), false),
            (format!("ff-{TRACE_ID}-00f067aa0ba902b7-01"), false),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
            (format!("00-{TRACE_ID}-0000000000000000-01"), false),
            (format!("00-{}-00f067aa0ba902b7-01", TRACE_ID.to_uppercase()), false),
            (format!("00-{}-00f067aa0ba902b7-01", &TRACE_ID[1..]), false),
            (format!("00-{TRACE_ID}"), false),
            ("a=1 level=ERROR".to_owned(), false),
            (String::new(), false),
        ] {
            let block = format!("Subject: s\r\ntraceparent:{value}\r\nTo: a@b\r\n");
            assert_eq!(trace_id(block.as_bytes()).as_deref(), is_valid.then_some(TRACE_ID), "{value:?}");
        }
        let one = format!("Traceparent: 00-{TRACE_ID}-00f067aa0ba902b7-01\r\n");
        assert_eq!(trace_id(one.repeat(2).as_bytes()), None);
        assert_eq!(trace_id(b"Subject: s\r\n"), None);
    }
}
