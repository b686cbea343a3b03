//! HTML of arbitrary octets: the text is in proportion and consists of whole lines, and both ways of getting the links
//! agree. `run` limits the memory, which shows what a number in the HTML can cause.

use crate::message::html::{LARGEST, links, to_text};

pub fn html(bytes: &[u8]) {
    let html = String::from_utf8_lossy(bytes);
    let text = to_text(&html);
    assert_eq!(text.as_ref().err(), links(&html).as_ref().err());
    if html.len() > LARGEST {
        assert!(text.is_err());
    }
    if let Ok(Some(text)) = text {
        assert!(text.len() <= 3 * html.len() + 8192, "{} octets", text.len());
        assert!(text.ends_with("\r\n") && !text.contains("\r\n\r\n\r\n") && !text.contains(['\u{e000}', '\u{e001}']));
    }
    for link in links(&html).unwrap_or_default() {
        assert!(!link.contains(char::is_whitespace), "{link:?}");
    }
}
