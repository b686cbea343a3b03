//! Data framing: from the wire to a message and back.
//!
//! Only CRLF.CRLF ends data. Bare CR and LF become CRLF (or are reported). Anything that a more lenient server could
//! read as an end is reported, so that the message is refused as a whole: no byte sequence becomes two messages here or
//! downstream (SMTP smuggling, CVE-2023-51764/51765/51766). RFC 5321 §4.1.1.4, §4.5.2, §2.3.8.

/// Oddities of the data. The message is read to its true end in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Oddities {
    pub bare_line_ending: bool,
    /// A dot alone on a line that a bare CR or LF delimits.
    pub stray_end: bool,
    pub nul: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DotState {
    /// At the start of a line; the flag says whether a CRLF (or the start) came before, not a bare CR or LF.
    LineStart {
        clean: bool,
    },
    /// One dot seen at the start of a line.
    Dot {
        clean: bool,
    },
    /// CR after such a dot.
    DotCr {
        clean: bool,
    },
    InLine,
    /// CR seen somewhere in a line.
    Cr,
    Done,
}

/// Reads DATA as it arrives; any split of the input gives the same result.
///
/// The output has only CRLF line endings and is un-stuffed.
#[derive(Debug)]
pub struct DotDecoder {
    state: DotState,
    oddities: Oddities,
}

impl Default for DotDecoder {
    fn default() -> Self {
        Self { state: DotState::LineStart { clean: true }, oddities: Oddities::default() }
    }
}

impl DotDecoder {
    /// Consumes from the front of `input` and appends to `out`; returns the octets consumed. After the end nothing more
    /// is consumed, because what follows belongs to the next command.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        while at < input.len() && self.state != DotState::Done {
            if self.state == DotState::InLine {
                let run = memchr::memchr3(b'\r', b'\n', 0, &input[at..]).unwrap_or(input.len() - at);
                out.extend_from_slice(&input[at..at + run]);
                at += run;
                if at == input.len() {
                    break;
                }
            }
            self.step(input[at], out);
            at += 1;
        }
        at
    }

    pub fn is_done(&self) -> bool {
        self.state == DotState::Done
    }

    pub fn oddities(&self) -> Oddities {
        self.oddities
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.state = match self.state {
            DotState::LineStart { clean } => match byte {
                b'.' => DotState::Dot { clean },
                _ => self.in_line(byte, out),
            },
            DotState::Dot { clean } => match byte {
                b'\r' => DotState::DotCr { clean },
                b'\n' => self.stray_dot(out),
                // RFC 5321 §4.5.2: if a line has more than a dot, its first dot is removed. Also after a bare LF,
                // because both of Plausible's clients stuff there.
                b'.' => {
                    out.push(b'.');
                    DotState::InLine
                }
                _ => {
                    // A dot followed by something else: some clients forget to stuff, and then the dot is content.
                    out.push(b'.');
                    self.in_line(byte, out)
                }
            },
            DotState::DotCr { clean } => match byte {
                b'\n' if clean => DotState::Done,
                // The next line does begin after a true CRLF.
                b'\n' => {
                    self.stray_dot(out);
                    DotState::LineStart { clean: true }
                }
                // ".\r" without LF: the CR is bare, and the dot was alone before it.
                _ => {
                    self.stray_dot(out);
                    self.at_line_start(byte, out)
                }
            },
            DotState::InLine => self.in_line(byte, out),
            DotState::Cr => match byte {
                b'\n' => {
                    out.extend_from_slice(b"\r\n");
                    DotState::LineStart { clean: true }
                }
                _ => {
                    self.bare_break(out);
                    self.at_line_start(byte, out)
                }
            },
            DotState::Done => DotState::Done,
        };
    }

    /// A byte that begins a line after a bare CR.
    fn at_line_start(&mut self, byte: u8, out: &mut Vec<u8>) -> DotState {
        if byte == b'.' { DotState::Dot { clean: false } } else { self.in_line(byte, out) }
    }

    fn in_line(&mut self, byte: u8, out: &mut Vec<u8>) -> DotState {
        match byte {
            b'\r' => DotState::Cr,
            b'\n' => self.bare_break(out),
            _ => {
                self.oddities.nul |= byte == 0;
                out.push(byte);
                DotState::InLine
            }
        }
    }

    fn bare_break(&mut self, out: &mut Vec<u8>) -> DotState {
        self.oddities.bare_line_ending = true;
        out.extend_from_slice(b"\r\n");
        DotState::LineStart { clean: false }
    }

    fn stray_dot(&mut self, out: &mut Vec<u8>) -> DotState {
        self.oddities.stray_end = true;
        self.oddities.bare_line_ending = true;
        out.extend_from_slice(b".\r\n");
        DotState::LineStart { clean: false }
    }
}

/// Writes a message as DATA, piece by piece: every line that begins with a dot gets another one, and `CRLF.CRLF` ends
/// the data. Any split of the message gives the same result.
///
/// The message must have only CRLF line endings ([`has_only_crlf`]; `message::RawMessage` guarantees it). A message
/// that does not end with CRLF gets one.
#[derive(Debug)]
pub struct DotEncoder {
    at_line_start: bool,
}

impl Default for DotEncoder {
    fn default() -> Self {
        Self { at_line_start: true }
    }
}

impl DotEncoder {
    /// Appends `piece` to `out`, stuffed.
    pub fn encode(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut rest = piece;
        while !rest.is_empty() {
            if self.at_line_start && rest[0] == b'.' {
                out.push(b'.');
            }
            let end = memchr::memchr(b'\n', rest);
            let (line, tail) = rest.split_at(end.map_or(rest.len(), |at| at + 1));
            out.extend_from_slice(line);
            self.at_line_start = end.is_some();
            rest = tail;
        }
    }

    /// Appends the end of data.
    pub fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.at_line_start { b".\r\n" } else { b"\r\n.\r\n" });
    }
}

/// True if every CR is followed by LF, every LF follows a CR, and there is no NUL, as required for data.
pub fn has_only_crlf(bytes: &[u8]) -> bool {
    let mut after_pair = 0;
    for at in memchr::memchr3_iter(b'\r', b'\n', 0, bytes) {
        match bytes[at] {
            b'\r' if bytes.get(at + 1) == Some(&b'\n') => after_pair = at + 1,
            b'\n' if at > 0 && at == after_pair => {}
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(input: &[u8]) -> (Vec<u8>, usize, bool, Oddities) {
        let mut decoder = DotDecoder::default();
        let mut out = Vec::new();
        let consumed = decoder.decode(input, &mut out);
        (out, consumed, decoder.is_done(), decoder.oddities())
    }

    #[test]
    fn framing_table() {
        for (input, output, done) in [
            (&b".\r\n"[..], &b""[..], true),
            (b"a\r\n.\r\n", b"a\r\n", true),
            (b"..a\r\n.\r\n", b".a\r\n", true),
            (b".a\r\n.\r\n", b".a\r\n", true),
            (b"a\n..b\r\n.\r\n", b"a\r\n.b\r\n", true),
            (b"a\nb\rc\r\n.\r\n", b"a\r\nb\r\nc\r\n", true),
            (b"a\r\r\n.\r\n", b"a\r\n\r\n", true),
            (b"a\r\n.", b"a\r\n", false),
        ] {
            let (out, consumed, is_done, _) = decode(input);
            assert_eq!((out.as_slice(), is_done), (output, done), "{}", input.escape_ascii());
            assert_eq!(consumed, input.len());
        }
    }

    #[test]
    fn only_crlf_dot_crlf_ends_and_every_look_alike_is_reported() {
        for &lookalike in crate::lookalikes::LOOKALIKES {
            let input = [b"a", lookalike, b"MAIL FROM:<x@y>\r\n.\r\nQUIT\r\n"].concat();
            let (_, consumed, done, oddities) = decode(&input);
            assert!(done, "{}", lookalike.escape_ascii());
            assert_eq!(&input[consumed..], b"QUIT\r\n", "{}", lookalike.escape_ascii());
            assert!(oddities.stray_end || oddities.nul, "{}", lookalike.escape_ascii());
        }
    }

    #[test]
    fn bytes_behind_the_end_are_left() {
        assert_eq!(decode(b"a\r\n.\r\nQUIT\r\n").1, 6);
    }

    fn encode(message: &[u8], cut: usize) -> Vec<u8> {
        let mut encoder = DotEncoder::default();
        let mut wire = Vec::new();
        let (first, second) = message.split_at(cut.min(message.len()));
        encoder.encode(first, &mut wire);
        encoder.encode(second, &mut wire);
        encoder.finish(&mut wire);
        wire
    }

    #[test]
    fn stuffing_table() {
        for (message, wire) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"a\r\n.b\r\n..\r\n", b"a\r\n..b\r\n...\r\n.\r\n"),
        ] {
            assert_eq!(encode(message, 0), wire, "{}", message.escape_ascii());
        }
    }

    #[test]
    fn what_may_be_sent_as_data() {
        for good in [&b""[..], b"a", b"a\r\n", b"\r\n\r\nb"] {
            assert!(has_only_crlf(good), "{}", good.escape_ascii());
        }
        for bad in [&b"\r"[..], b"\n", b"a\nb\r\n", b"a\rb\r\n", b"\r\r\n", b"\r\n\n", b"a\0b\r\n"] {
            assert!(!has_only_crlf(bad), "{}", bad.escape_ascii());
        }
    }

    fn odd_bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(0), Just(b'a')], 0..60)
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(input in odd_bytes(), cut in 0usize..60) {
            let cut = cut.min(input.len());
            let mut decoder = DotDecoder::default();
            let mut out = Vec::new();
            let mut consumed = decoder.decode(&input[..cut], &mut out);
            if consumed == cut {
                consumed += decoder.decode(&input[cut..], &mut out);
            }
            prop_assert_eq!((out, consumed, decoder.is_done(), decoder.oddities()), decode(&input));
        }

        #[test]
        fn what_was_decoded_survives_the_way_out(input in odd_bytes(), cut in 0usize..60) {
            let (mut message, _, done, oddities) = decode(&[&input, &b"\r\n.\r\n"[..]].concat());
            prop_assume!(done);
            prop_assert_eq!(has_only_crlf(&message), !oddities.nul);
            let wire = encode(&message, cut);
            if !message.is_empty() && !message.ends_with(b"\r\n") {
                message.extend_from_slice(b"\r\n");
            }
            let (back, consumed, done, on_the_wire) = decode(&wire);
            prop_assert!(done && !on_the_wire.bare_line_ending && !on_the_wire.stray_end);
            prop_assert_eq!(consumed, wire.len());
            prop_assert_eq!(back, message);
        }
    }
}
