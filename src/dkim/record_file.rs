//! Reads DKIM records back from text: our own output, zone files, what opendkim-genkey writes, what dig and host print.
//!
//! Bytes in, records out; nothing is looked up. RFC 1035 §5.1 for zone files.

/// A record as found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenRecord {
    /// Lower case, without the final dot; ends in `_domainkey` if the file left the domain out. `None`: the text alone.
    pub name: Option<String>,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it holds no DKIM record; expected the text \"v=DKIM1; k=rsa; p=...\", or a line of a zone file with that text in \
     quotes"
)]
pub struct NoRecord;

/// Every record of a file, in order; at least one.
pub fn parse(file: &str) -> Result<Vec<WrittenRecord>, NoRecord> {
    let records = if file.contains('"') { quoted(file) } else { bare(file) };
    if records.is_empty() { Err(NoRecord) } else { Ok(records) }
}

/// One entry of a zone file, or one line that looks like it.
#[derive(Default)]
struct ZoneEntry {
    words: Vec<String>,
    text: String,
}

impl ZoneEntry {
    fn record(self, origin: &str) -> Option<WrittenRecord> {
        if !is_key_record(&self.text) {
            return None;
        }
        let name = self.words.iter().find_map(|word| domain_key_name(word, origin));
        Some(WrittenRecord { name, text: self.text })
    }
}

fn quoted(file: &str) -> Vec<WrittenRecord> {
    let mut records = Vec::new();
    let mut entry = ZoneEntry::default();
    let mut origin = String::new();
    for token in ZoneTokens::new(file).chain([ZoneToken::End]) {
        match token {
            ZoneToken::Word(word) => entry.words.push(word),
            ZoneToken::String(text) => entry.text.push_str(&text),
            ZoneToken::End => {
                let ended = std::mem::take(&mut entry);
                match ended.words.as_slice() {
                    [directive, name, ..] if directive.eq_ignore_ascii_case("$ORIGIN") => origin.clone_from(name),
                    _ => records.extend(ended.record(&origin)),
                }
            }
        }
    }
    records
}

enum ZoneToken {
    Word(String),
    String(String),
    /// The end of a line outside parentheses.
    End,
}

struct ZoneTokens<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    parentheses: usize,
}

impl<'a> ZoneTokens<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text.chars().peekable(), parentheses: 0 }
    }

    fn string(&mut self) -> String {
        let mut text = String::new();
        while let Some(character) = self.rest.next() {
            match character {
                '"' => break,
                '\\' => text.extend(self.escaped()),
                other => text.push(other),
            }
        }
        text
    }

    // "\;" and "\"" stand for the character, "\059" for the octet with that number.
    fn escaped(&mut self) -> Option<char> {
        let first = self.rest.next()?;
        let mut number = first.to_digit(10)?;
        for _ in 0..2 {
            number = number * 10 + self.rest.next_if(char::is_ascii_digit)?.to_digit(10)?;
        }
        char::from_u32(number)
    }

    fn word(&mut self, first: char) -> String {
        let mut word = String::from(first);
        while let Some(character) = self.rest.next_if(|&c| !c.is_whitespace() && !"\";()".contains(c)) {
            word.push(character);
        }
        word
    }
}

impl Iterator for ZoneTokens<'_> {
    type Item = ZoneToken;

    fn next(&mut self) -> Option<ZoneToken> {
        loop {
            match self.rest.next()? {
                '"' => return Some(ZoneToken::String(self.string())),
                ';' => while self.rest.next_if(|&c| c != '\n').is_some() {},
                '(' => self.parentheses += 1,
                ')' => self.parentheses = self.parentheses.saturating_sub(1),
                '\n' if self.parentheses == 0 => return Some(ZoneToken::End),
                space if space.is_whitespace() => {}
                first => return Some(ZoneToken::Word(self.word(first))),
            }
        }
    }
}

// Text without quotes: each record begins at its first tag and continues until an empty line, the next name, or the
// next "v=".
fn bare(file: &str) -> Vec<WrittenRecord> {
    let mut records: Vec<WrittenRecord> = Vec::new();
    let mut name = None;
    let mut open = false;
    for line in file.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            open = false;
        } else if let Some(start) = start_of_text(line) {
            let named = line[..start].split_whitespace().find_map(|word| domain_key_name(word, ""));
            records.push(WrittenRecord { name: named.or(name.take()), text: line[start..].to_owned() });
            open = true;
        } else if let Some(named) = line.split_whitespace().find_map(|word| domain_key_name(word, "")) {
            name = Some(named);
            open = false;
        } else if let (true, Some(record)) = (open, records.last_mut()) {
            record.text.push_str(line);
        }
    }
    records.retain(|record| is_key_record(&record.text));
    records
}

fn start_of_text(line: &str) -> Option<usize> {
    let tag = |at: usize| {
        let compact: String = line[at..].chars().filter(|c| !c.is_whitespace()).take(3).collect();
        ["v=D", "k=r", "k=e", "p=M"].iter().any(|start| compact.eq_ignore_ascii_case(start))
    };
    let starts = line.char_indices().map(|(at, _)| at);
    starts.filter(|&at| at == 0 || line[..at].ends_with(char::is_whitespace)).find(|&at| tag(at))
}

fn is_key_record(text: &str) -> bool {
    text.split(';').any(|tag| tag.split_once('=').is_some_and(|(name, _)| name.trim() == "p"))
}

fn domain_key_name(word: &str, origin: &str) -> Option<String> {
    let name = word.to_ascii_lowercase();
    let labels = || name.split('.');
    if !labels().any(|label| label == "_domainkey") {
        return None;
    }
    match name.strip_suffix('.') {
        Some(absolute) => Some(absolute.to_owned()),
        None => Some(format!("{name}.{}", origin.to_ascii_lowercase()).trim_end_matches('.').to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_people_have_at_hand_is_read() {
        let full = Some("wax1._domainkey.example.com");
        for (file, name) in [
            ("v=DKIM1; k=rsa; p=MIIBAB", None),
            ("v=DKIM1; k=rsa;\n  p=MII\r\n  BAB\r\n", None),
            ("k=rsa; p=MIIBAB\n", None),
            ("p=MIIBAB", None),
            ("# our key\nName:  wax1._domainkey.example.com\nType:  TXT\nValue: v=DKIM1; k=rsa; p=MIIBAB\n", full),
            ("wax1._domainkey.example.com. IN TXT \"v=DKIM1; k=rsa; p=MIIBAB\"", full),
            ("Wax1._DomainKey.Example.com.\t300\tIN\tTXT\t\"v=DKIM1; k=rsa; \" \"p=MIIBAB\"\n", full),
            (
                "$ORIGIN example.com.\nwax1._domainkey IN TXT (\n \"v=DKIM1\\; k=rsa; p=MII\" ; a comment \"x\"\n \"BAB\" )\n",
                full,
            ),
            (
                "; a zone\n@ IN TXT \"v=spf1 -all\"\nwax1._domainkey.example.com TXT \"v=DKIM1\\059 k=rsa; p=MIIBAB\"",
                full,
            ),
            ("wax1._domainkey.example.com descriptive text \"v=DKIM1; k=rsa; p=MIIBAB\"\n", full),
            ("\"v=DKIM1; k=rsa; \" \"p=MIIBAB\"\n", None),
            // opendkim-genkey
            (
                "wax1._domainkey\tIN\tTXT\t( \"v=DKIM1; h=sha256; k=rsa; \"\n\t  \"p=MIIBAB\" )  ; ----- DKIM key wax1 for example.com\n",
                Some("wax1._domainkey"),
            ),
        ] {
            let records = parse(file).expect(file);
            assert_eq!(records.len(), 1, "{file}");
            assert_eq!(records[0].name.as_deref(), name, "{file}");
            let tags: String = records[0].text.split_whitespace().collect();
            assert!(tags.ends_with("p=MIIBAB"), "{file}: {tags}");
        }
    }

    #[test]
    fn several_records_stay_apart() {
        let form = "Name: a._domainkey.x.org\nValue: v=DKIM1; p=MA\n\nName: b._domainkey.x.org\nValue: v=DKIM1; p=MB\n";
        let zone = "a._domainkey.x.org. TXT \"v=DKIM1; p=MA\"\nb._domainkey.x.org. TXT \"v=DKIM1; p=MB\"\n";
        for file in [form, zone, &format!("{form}\n{zone}")] {
            let records = parse(file).expect(file);
            let names: Vec<_> = records.iter().map(|r| (r.name.as_deref().unwrap_or(""), r.text.as_str())).collect();
            assert_eq!(
                names,
                [("a._domainkey.x.org", "v=DKIM1; p=MA"), ("b._domainkey.x.org", "v=DKIM1; p=MB")],
                "{file}"
            );
        }
    }

    #[test]
    fn other_files_hold_none() {
        for file in
            ["", "hello", "\"", "-----BEGIN PUBLIC KEY-----\nMIIB\n", "example.com. IN TXT \"v=spf1 -all\"", "(((\"\\"]
        {
            assert_eq!(parse(file), Err(NoRecord), "{file:?}");
        }
    }
}
