//! Reads what Postfix delivered, without the headers that Postfix added.

use std::fs;
use std::path::Path;

/// One mail, delivered to one recipient.
#[derive(Debug)]
pub struct Arrival {
    /// The envelope's sender; empty for the null path.
    pub sender: String,
    pub recipient: String,
    /// Postfix's own Received header, unfolded.
    pub received: String,
    /// The message as it crossed the wire: lines end in CRLF.
    pub message: Vec<u8>,
}

/// What is in the folder now, oldest first.
pub fn read(folder: &Path) -> Vec<Arrival> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new(); // made at the first delivery
    };
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a readable Maildir").path())
        .map(|path| (fs::metadata(&path).and_then(|it| it.modified()).expect("a time"), path))
        .collect();
    files.sort();
    files.iter().map(|(_, path)| parse(&fs::read(path).expect("a readable mail"))).collect()
}

/// Postfix's virtual(8) writes Return-Path, Delivered-To and Received above the message and ends lines with LF.
fn parse(stored: &[u8]) -> Arrival {
    let mut rest = stored;
    let sender = take_header(&mut rest, "Return-Path: ");
    let recipient = take_header(&mut rest, "Delivered-To: ");
    let received = take_header(&mut rest, "Received: ");
    let mut message = Vec::with_capacity(rest.len() + rest.len() / 32);
    for line in rest.split_inclusive(|octet| *octet == b'\n') {
        let content = line.strip_suffix(b"\n").unwrap_or(line);
        message.extend_from_slice(content);
        message.extend_from_slice(b"\r\n");
    }
    let sender = sender.trim_matches(['<', '>']).to_owned();
    Arrival { sender, recipient, received, message }
}

fn take_header(rest: &mut &[u8], name: &str) -> String {
    let value = rest.strip_prefix(name.as_bytes());
    let value = value.unwrap_or_else(|| panic!("Postfix did not write {name}"));
    let ends = |at: &usize| value[*at] == b'\n' && !matches!(value.get(at + 1), Some(b' ' | b'\t'));
    let end = (0..value.len()).find(ends).expect("a header ends");
    *rest = &value[end + 1..];
    String::from_utf8_lossy(&value[..end]).replace("\n\t", " ")
}
