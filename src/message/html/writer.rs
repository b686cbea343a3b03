//! Writes text as the tokens of the HTML arrive: line ends, the marks at the beginning of lines, and links after their
//! text.
//!
//! Knows no tree: an element that is never closed ends with the text. A number in the HTML costs no more than its
//! digits.

/// Enclose the address of a link until the text beside it is known. For private use, Unicode §23.5.
const OPEN: char = '\u{e000}';
const CLOSE: char = '\u{e001}';
/// The most nested quotes that a line shows, and the most nested lists that are tracked.
const DEEPEST: usize = 16;
/// Maximum digits of the number with which a list may begin; a list with a longer one begins with 1.
const LONGEST_NUMBER: usize = 6;

#[derive(Debug, Default)]
pub(super) struct TextWriter {
    pub text: String,
    /// Addresses of links that have a text, in order.
    pub links: Vec<String>,
    /// Once the text has this many octets, nothing more is written.
    most: usize,
    /// Number of line ends to write before the next text.
    gap: usize,
    /// A list item's mark to write before the next text.
    marker: Option<String>,
    link: Option<Link>,
    /// The next number of each list; `None` for bulleted lists.
    lists: Vec<Option<u32>>,
    /// Number of open lists beyond those.
    deeper_lists: usize,
    quotes: usize,
    preformatted: usize,
    /// At the beginning of a cell or an item, where an empty line is not wanted.
    at_start: bool,
    /// Where the text of a superscript begins.
    superscript: Option<usize>,
    /// Inside an element whose text is not shown.
    hidden: bool,
}

#[derive(Debug)]
struct Link {
    address: String,
    has_text: bool,
}

impl TextWriter {
    pub fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    pub fn is_full(&self) -> bool {
        self.text.len() > self.most
    }

    pub fn text(&mut self, text: &str) {
        if self.hidden {
            return;
        }
        if self.preformatted == 0 {
            return self.words(text);
        }
        for (at, line) in text.split('\n').enumerate() {
            if at > 0 {
                self.line_ends();
            }
            self.words(line);
        }
    }

    /// `attribute` returns an attribute's value by its name.
    pub fn tag<'a>(&mut self, name: &str, is_start: bool, attribute: impl Fn(&str) -> Option<&'a str>) {
        self.hidden = is_start && matches!(name, "style" | "script" | "title" | "iframe" | "noembed" | "noframes");
        match name {
            "a" => {
                self.end_link();
                let address = attribute("href").filter(|_| is_start).map(unbroken);
                self.link = address.map(|address| Link { address, has_text: false });
            }
            "img" if is_start => self.words(attribute("alt").unwrap_or_default()),
            "br" => self.line_ends(),
            "sup" if is_start => self.superscript = Some(self.text.len()),
            "sup" => self.raise(),
            "ul" | "ol" => {
                self.parts(1);
                self.list(is_start, (name == "ol").then(|| first_number(attribute("start"))));
            }
            "li" => {
                self.parts(1);
                self.marker = if is_start { Some(self.next_marker()) } else { None };
                self.at_start = is_start;
            }
            "blockquote" => {
                self.parts(2);
                self.quotes = nested(self.quotes, is_start);
            }
            "pre" | "listing" | "xmp" => {
                self.parts(2);
                self.preformatted = nested(self.preformatted, is_start);
            }
            "p" | "hr" => self.parts(2),
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => self.parts(if is_start { 2 } else { 1 }),
            "td" | "th" => {
                self.parts(1);
                self.gap = self.gap.min(1);
                self.at_start = is_start;
            }
            name if is_block(name) => self.parts(1),
            _ => {}
        }
    }

    /// Ends the open link, if there is one.
    pub fn end_link(&mut self) {
        let Some(Link { address, has_text: true }) = self.link.take() else { return };
        if !address.is_empty() && !address.starts_with('#') && !self.is_full() {
            self.text.extend([" ", OPEN.encode_utf8(&mut [0; 4]), &address, CLOSE.encode_utf8(&mut [0; 4]), " "]);
        }
        self.links.push(address);
    }

    fn words(&mut self, text: &str) {
        let is_blank = text.chars().all(is_space);
        if is_blank && self.gap > 0 || self.is_full() {
            return;
        }
        if !is_blank {
            self.begin_line();
            if let Some(link) = &mut self.link {
                link.has_text = true;
            }
        }
        self.text.extend(text.chars().filter(|c| ![OPEN, CLOSE].contains(c)).map(|c| if c == '\n' { ' ' } else { c }));
    }

    fn begin_line(&mut self) {
        let begins = self.text.is_empty() || self.gap > 0;
        self.at_start = false;
        for _ in 0..std::mem::take(&mut self.gap) {
            self.text.push('\n');
        }
        if begins {
            self.text.extend(std::iter::repeat_n("> ", self.quotes.min(DEEPEST)));
        }
        self.text.extend(self.marker.take());
    }

    /// Ensures at least this many line ends between the previous and the next text.
    fn parts(&mut self, line_ends: usize) {
        if !self.text.is_empty() {
            self.gap = self.gap.max(if self.at_start { 1 } else { line_ends });
        }
    }

    /// Adds one line end to the pending ones: where two meet, there is an empty line.
    fn line_ends(&mut self) {
        if !self.text.is_empty() {
            self.gap = (self.gap + 1).min(2);
        }
    }

    fn list(&mut self, is_start: bool, first: Option<u32>) {
        match is_start {
            true if self.lists.len() < DEEPEST => self.lists.push(first),
            true => self.deeper_lists += 1,
            false if self.deeper_lists > 0 => self.deeper_lists -= 1,
            false => drop(self.lists.pop()),
        }
    }

    fn next_marker(&mut self) -> String {
        match self.lists.last_mut() {
            Some(Some(number)) if self.deeper_lists == 0 => {
                *number += 1;
                format!("{}. ", *number - 1)
            }
            _ => "- ".to_owned(),
        }
    }

    /// Writes the digits of a superscript as superscript characters.
    fn raise(&mut self) {
        let Some(start) = self.superscript.take() else { return };
        let Some(text) = self.text.get(start..) else { return };
        let digits = text.trim_start();
        if let Some(raised) = digits.trim_end().chars().map(raised).collect::<Option<String>>() {
            self.text.truncate(self.text.len() - digits.len());
            self.text.push_str(&raised);
        }
    }
}

fn nested(depth: usize, is_start: bool) -> usize {
    if is_start { depth + 1 } else { depth.saturating_sub(1) }
}

fn first_number(start: Option<&str>) -> u32 {
    start.filter(|start| start.len() <= LONGEST_NUMBER).and_then(|start| start.trim().parse().ok()).unwrap_or(1)
}

fn raised(c: char) -> Option<char> {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    DIGITS.get(usize::try_from(c.to_digit(10)?).ok()?).copied()
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | '\x0c')
}

/// Elements that begin and end a line. HTML, "Rendering", flow content, and the parts of tables.
fn is_block(name: &str) -> bool {
    const BLOCKS: [&str; 37] = [
        "address",
        "article",
        "aside",
        "body",
        "caption",
        "center",
        "dd",
        "details",
        "dialog",
        "dir",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "header",
        "hgroup",
        "html",
        "legend",
        "main",
        "menu",
        "nav",
        "optgroup",
        "option",
        "search",
        "section",
        "select",
        "summary",
        "table",
        "tbody",
        "textarea",
        "tfoot",
        "thead",
        "tr",
    ];
    BLOCKS.contains(&name)
}

/// Reads an address as browsers do: without line ends, tabs and surrounding spaces. Other white space is encoded, so
/// that the address stays in one piece when it is shown.
fn unbroken(url: &str) -> String {
    let mut out = String::with_capacity(url.len());
    for c in url.trim_matches(|c| c <= ' ').chars().filter(|c| !['\t', '\r', '\n', OPEN, CLOSE].contains(c)) {
        if c.is_whitespace() {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| out.push_str(&format!("%{byte:02X}")));
        } else {
            out.push(c);
        }
    }
    out
}

/// Removes white space at line ends and double spaces, and leaves at most one empty line between paragraphs.
pub(super) fn tidied(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut pending = "";
    for line in text.lines() {
        let words: Vec<_> = line.split([' ', '\t', '\u{a0}', '\r', '\x0c']).filter(|word| !word.is_empty()).collect();
        if words.is_empty() {
            pending = if out.is_empty() { "" } else { "\r\n" };
            continue;
        }
        out.push_str(std::mem::take(&mut pending));
        push_line(&words, &mut out);
        out.push_str("\r\n");
    }
    out
}

/// Writes an address in parentheses after the text of its link, unless it is that text; then the sentence continues.
fn push_line(words: &[&str], out: &mut String) {
    let mut before: Option<&str> = None;
    let mut behind_link = false;
    for word in words {
        let address = word.strip_prefix(OPEN).and_then(|rest| rest.strip_suffix(CLOSE));
        let is_echo = address.is_some() && address == before;
        if !is_echo {
            let glued = behind_link && word.starts_with(['.', ',', ';', ':', '!', '?', ')']);
            if before.is_some() && !glued {
                out.push(' ');
            }
            match address {
                Some(address) => out.extend(["(", address, ")"]),
                None => out.push_str(word),
            }
        }
        behind_link = address.is_some();
        before = Some(word);
    }
}
