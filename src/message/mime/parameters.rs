//! Parameters of Content-Type and Content-Disposition: raw UTF-8 in them is rewritten in the form of RFC 2231.

/// The value with its raw parameters rewritten; `None` if there are none, or it cannot be read with certainty.
pub fn repaired_parameters(value: &str) -> Option<String> {
    if value.is_ascii() || value.chars().any(|c| c.is_control() && c != '\t') {
        return None;
    }
    let pieces = pieces(value)?;
    let (head, parameters) = pieces.split_first()?;
    let names: Vec<_> = parameters.iter().map(|piece| name_of(piece).to_ascii_lowercase()).collect();
    let mut repaired = head.is_ascii().then(|| (*head).to_owned())?;
    for piece in parameters.iter().filter(|piece| !piece.is_empty()) {
        if piece.is_ascii() {
            repaired.push_str("; ");
            repaired.push_str(piece);
            continue;
        }
        let name = name_of(piece);
        let is_token =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let text = text_of(piece).filter(|_| is_token)?;
        // The RFC 2231 form is already there.
        if !names.contains(&format!("{name}*").to_ascii_lowercase()) {
            repaired.push_str(&extended(name, &text));
        }
    }
    Some(repaired)
}

/// The text between semicolons, except those in quotes.
fn pieces(value: &str) -> Option<Vec<&str>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => {
                pieces.push(value[start..at].trim_matches([' ', '\t']));
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(value[start..].trim_matches([' ', '\t']));
    (!quoted).then_some(pieces)
}

fn name_of(piece: &str) -> &str {
    piece.split('=').next().unwrap_or_default().trim_end_matches([' ', '\t'])
}

fn text_of(piece: &str) -> Option<String> {
    let value = piece.split_once('=')?.1.trim_start_matches([' ', '\t']);
    let Some(quoted) = value.strip_prefix('"') else { return (!value.contains('"')).then(|| value.to_owned()) };
    let mut text = String::new();
    let mut chars = quoted.strip_suffix('"')?.chars();
    while let Some(c) = chars.next() {
        text.push(if c == '\\' { chars.next()? } else { c });
    }
    Some(text)
}

/// Octets of one section, so that it fits into a line.
const SECTION: usize = 50;

/// RFC 2231 §4, in sections where it is long (§3).
fn extended(name: &str, text: &str) -> String {
    let mut sections = vec![String::new()];
    for c in text.chars() {
        let encoded: String = if c.is_ascii_alphanumeric() || "-._".contains(c) {
            c.to_string()
        } else {
            c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}")).collect()
        };
        match sections.last_mut() {
            Some(last) if last.len() + encoded.len() <= SECTION => last.push_str(&encoded),
            _ => sections.push(encoded),
        }
    }
    if let [only] = sections.as_slice() {
        return format!("; {name}*=UTF-8''{only}");
    }
    let section = |(number, text): (usize, &String)| {
        format!("; {name}*{number}*={}{text}", if number == 0 { "UTF-8''" } else { "" })
    };
    sections.iter().enumerate().map(section).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail_parser::parsers::MessageStream;

    #[test]
    fn before_and_after() {
        for (before, after) in [
            ("attachment; filename=\"Übersicht 1.pdf\"", Some("attachment; filename*=UTF-8''%C3%9Cbersicht%201.pdf")),
            ("attachment;filename=ü;size=3", Some("attachment; filename*=UTF-8''%C3%BC; size=3")),
            (
                "attachment; filename=\"a;\\\"ü\"; x=\"y;z\"",
                Some("attachment; filename*=UTF-8''a%3B%22%C3%BC; x=\"y;z\""),
            ),
            (
                "attachment; filename=\"ü.pdf\"; filename*=UTF-8''%C3%BC.pdf",
                Some("attachment; filename*=UTF-8''%C3%BC.pdf"),
            ),
            ("attachment; filename=\"plain.pdf\"", None),
            ("attachment; filename=\"open ü.pdf", None),
            ("attachment; ü=x", None),
            ("ü; a=b", None),
        ] {
            assert_eq!(repaired_parameters(before).as_deref(), after, "{before}");
        }
    }

    #[test]
    fn long_names_come_in_sections() {
        let name = "Größenänderungsübersicht für das dritte Vierteljahr.pdf";
        let repaired = repaired_parameters(&format!("attachment; filename=\"{name}\"")).expect("mended");
        assert!(repaired.contains("; filename*1*=") && repaired.split("; ").all(|part| part.len() <= 76), "{repaired}");
        let line = format!("{repaired}\r\n");
        let parsed = MessageStream::new(line.as_bytes()).parse_content_type().into_owned();
        assert_eq!(parsed.as_content_type().and_then(|parsed| parsed.attribute("filename")), Some(name));
    }
}
