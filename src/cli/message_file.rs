//! Reads a message from a file, for commands.

use super::unreadable;
use anyhow::Context as _;
use std::borrow::Cow;
use std::io::Read as _;
use std::path::Path;

/// "-": standard input.
pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut message = Vec::new();
        std::io::stdin().lock().read_to_end(&mut message).context("standard input cannot be read")?;
        return Ok(message);
    }
    std::fs::read(path).map_err(|error| unreadable(path, &error))
}

/// A file saved with LF line endings had CRLF in transit.
pub fn with_crlf(message: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memmem::find(message, b"\r\n").is_some() {
        return message.into();
    }
    let mut converted = Vec::with_capacity(message.len() + message.len() / 32);
    for line in message.split_inclusive(|&byte| byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(content) => {
                converted.extend_from_slice(content);
                converted.extend_from_slice(b"\r\n");
            }
            None => converted.extend_from_slice(line),
        }
    }
    converted.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_become_crlf_only_where_there_was_none() {
        for (saved, sent) in [
            ("A: 1\n\nb\n", "A: 1\r\n\r\nb\r\n"),
            ("A: 1\n\nb", "A: 1\r\n\r\nb"),
            ("A: 1\r\n\r\nb\n", "A: 1\r\n\r\nb\n"),
            ("", ""),
        ] {
            assert_eq!(with_crlf(saved.as_bytes()), sent.as_bytes(), "{saved:?}");
        }
    }
}
