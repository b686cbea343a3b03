//! Reads the recordings of tests/wire: what happened on each connection, in order.

/// One thing that happened.
#[derive(Debug)]
pub enum Event {
    Opened,
    /// What the client sent in one go.
    Client(Vec<u8>),
    /// The last line of each reply in one block.
    Server(Vec<String>),
    /// TLS is up; what follows is inside it.
    Secured,
}

/// The events of `text`; panics on what it does not understand.
pub fn parse(text: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.contains("-- connection opened") {
            events.push(Event::Opened);
        } else if line.contains("-- TLS up") {
            events.push(Event::Secured);
        } else if let Some((_, size)) = line.split_once("client sent ") {
            let mut bytes = Vec::new();
            while let Some(sent) = lines.next_if(|line| line.starts_with("C: ")) {
                bytes.extend_from_slice(&unescape(&sent[3..]));
            }
            let expected = size.split(' ').next().unwrap();
            assert_eq!(bytes.len().to_string(), expected, "octets behind \"{line}\"");
            events.push(Event::Client(bytes));
        } else if line.contains("server sent ") {
            let mut replies = Vec::new();
            while let Some(said) = lines.next_if(|line| line.starts_with("S: ")) {
                let said = said[3..].trim_end_matches("\\n").trim_end_matches("\\r");
                if said.as_bytes().get(3) == Some(&b' ') {
                    replies.push(said.to_owned());
                }
            }
            events.push(Event::Server(replies));
        }
    }
    events
}

/// `\r \n \t \0 \\ \xNN`
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let [escaped, tail @ ..] = rest else { panic!("a backslash at the end of {text}") };
        rest = tail;
        bytes.push(match escaped {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let (digits, tail) = rest.split_at(2);
                rest = tail;
                u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            }
            other => panic!("no such escape: {other}"),
        });
    }
    bytes
}
