//! `List-Unsubscribe` from a link in the text: mail readers show it as a button beside the sender, and large receivers
//! require it of bulk senders. RFC 2369 §3.2, RFC 8058.

use super::ListUnsubscribe;
use super::header::HeaderEditor;
use super::outcome::HeaderTrouble;
use super::texts::Texts;
use crate::message::Field;

const NAME: &str = "List-Unsubscribe";

/// The application's own header stays. A text without such a link is not an error: not all mail is bulk mail.
pub(super) fn add(header: &mut HeaderEditor<'_>, wanted: &ListUnsubscribe, texts: &mut Texts) {
    if header.message.has(NAME) {
        return;
    }
    let Some(link) = texts.link(header.message, |link| wanted.link.matches(link)) else { return };
    let Some(link) = as_uri(&link) else { return header.note(NAME, HeaderTrouble::Link) };
    let field = Field::new(NAME, &[&format!("<{link}>")]);
    let is_written = field.is_ok();
    header.insert(NAME, field.map_err(HeaderTrouble::from));
    if !wanted.one_click || !is_written {
        return;
    }
    let name = "List-Unsubscribe-Post";
    // RFC 8058 §3.1: HTTPS, and both fields in the signature.
    if !link.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
        header.note(name, HeaderTrouble::NotHttps);
    } else if !header.message.has(name) {
        header.insert(name, Field::new(name, &["List-Unsubscribe=One-Click"]).map_err(HeaderTrouble::from));
    }
}

/// RFC 3986 §2: ASCII, with the rest as `%XX`. `None`: it would end early, or another link would begin inside it.
fn as_uri(link: &str) -> Option<String> {
    let mut uri = String::with_capacity(link.len());
    for byte in link.bytes() {
        match byte {
            b'<' | b'>' | b'"' | b'\\' | b'`' => return None,
            // A comma separates links; inside a link it means the same when encoded.
            b',' => uri.push_str("%2C"),
            byte if byte.is_ascii_graphic() => uri.push(char::from(byte)),
            byte if byte.is_ascii() => return None,
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    Some(uri)
}
