//! HTML to plain text, for readers and filters that want one, and the links in it. html2text does the reading and the layout.
//!
//! A link is written once, behind its text in parentheses, as people write them. Work is bounded: the reader's time
//! grows with the square of nesting and of attributes, so what is larger or deeper than mail ever is gets no text.

use html2text::render::TextDecorator;
use html2text::{Element, Handle, RcDom, config};
use std::cell::RefCell;
use std::rc::Rc;

/// Octets. Large providers cut off the display at about 100 KiB.
const LARGEST: usize = 128 * 1024;
/// Anything that could open an element.
const MOST_TAGS: usize = 5000;
/// Quotes, lists and tables inside each other. Each of them handles every line within anew, and a quote and a list put
/// something before it. Newsletters stay below twenty.
const DEEPEST: usize = 32;
/// Digits of the number with which a list begins: it stands on each line of its item, in spaces.
const LONGEST_NUMBER: usize = 6;
/// Columns: paragraphs stay whole, since quoted-printable breaks their lines without harm to links.
const WIDTH: usize = 1 << 20;

/// Lines end with CRLF. `None` if nothing readable is left, or the work would be out of proportion.
pub fn to_text(html: &str) -> Option<String> {
    let text = tidied(&laid_out(html, Plain::default())?);
    if text.len() > 2 * html.len() + 4096 {
        return None;
    }
    text.chars().any(char::is_alphanumeric).then_some(text)
}

/// The addresses of the links that have a text, in order. None are found where reading would be out of proportion.
pub fn links(html: &str) -> Vec<String> {
    let found = Rc::<RefCell<Vec<String>>>::default();
    let plain = Plain { found: found.clone(), ..Plain::default() };
    let _text = laid_out(html, plain);
    found.take()
}

fn laid_out(html: &str, plain: Plain) -> Option<String> {
    if html.len() > LARGEST || memchr::memchr_iter(b'<', html.as_bytes()).count() > MOST_TAGS {
        return None;
    }
    let html = html.replace([OPEN, CLOSE], "");
    let plain = config::with_decorator(plain).raw_mode(true).link_footnotes(false).allow_width_overflow();
    let dom = plain.parse_html(html.as_bytes()).ok()?;
    if !bound(&dom) {
        return None;
    }
    plain.render_to_string(plain.dom_to_render_tree(&dom).ok()?, WIDTH).ok()
}

/// Bounds what a line may cost: lists that begin with too long a number begin with 1 from then on. False: it nests too deep.
fn bound(dom: &RcDom) -> bool {
    let mut open: Vec<(Handle, usize)> = vec![(dom.document.clone(), 0)];
    while let Some((node, mut depth)) = open.pop() {
        if let Element { name, attrs, .. } = &node.data {
            depth += usize::from(matches!(&*name.local, "blockquote" | "ul" | "ol" | "dl" | "dd" | "table"));
            attrs
                .borrow_mut()
                .retain(|attribute| &*attribute.name.local != "start" || attribute.value.len() <= LONGEST_NUMBER);
        }
        if depth > DEEPEST {
            return false;
        }
        open.extend(node.children.borrow().iter().map(|child| (child.clone(), depth)));
    }
    true
}

/// Around the address of a link, until it is known what stands beside it. For private use, Unicode §23.5.
const OPEN: char = '\u{e000}';
const CLOSE: char = '\u{e001}';

/// No white space at line ends, no double spaces, one empty line at most between paragraphs.
fn tidied(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut pending = "";
    for line in text.lines() {
        let words: Vec<_> = line.split([' ', '\t', '\u{a0}', '\r']).filter(|word| !word.is_empty()).collect();
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

/// An address stands in parentheses behind the text of its link, unless it is the text, and the sentence goes on.
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

/// As browsers read an address: line ends and tabs are not part of it, nor the spaces around it; white space in it is
/// encoded, so that it stays in one piece where it is shown.
fn unbroken(url: &str) -> String {
    let mut out = String::with_capacity(url.len());
    for c in url.trim_matches(|c| c <= ' ').chars().filter(|c| !"\t\r\n".contains(*c)) {
        if c.is_whitespace() {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| out.push_str(&format!("%{byte:02X}")));
        } else {
            out.push(c);
        }
    }
    out
}

/// Text without marks, and the address behind each link.
#[derive(Debug, Clone, Default)]
struct Plain {
    /// Those that are open.
    links: Vec<String>,
    /// All of them.
    found: Rc<RefCell<Vec<String>>>,
}

impl TextDecorator for Plain {
    type Annotation = ();

    fn decorate_link_start(&mut self, url: &str) -> (String, ()) {
        let url = unbroken(url);
        self.found.borrow_mut().push(url.clone());
        self.links.push(url);
        (String::new(), ())
    }

    fn decorate_link_end(&mut self) -> String {
        match self.links.pop() {
            Some(url) if !url.is_empty() && !url.starts_with('#') => format!(" {OPEN}{url}{CLOSE} "),
            _ => String::new(),
        }
    }

    fn decorate_em_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_em_end(&self) -> String {
        String::new()
    }

    fn decorate_strong_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_strong_end(&self) -> String {
        String::new()
    }

    fn decorate_strikeout_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_strikeout_end(&self) -> String {
        String::new()
    }

    fn decorate_code_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_code_end(&self) -> String {
        String::new()
    }

    fn decorate_superscript_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_superscript_end(&self) -> String {
        String::new()
    }

    fn decorate_preformat_first(&self) {}

    fn decorate_preformat_cont(&self) {}

    fn decorate_image(&mut self, _: &str, title: &str) -> (String, ()) {
        (title.to_owned(), ())
    }

    fn header_prefix(&self, _: usize) -> String {
        String::new()
    }

    fn quote_prefix(&self) -> String {
        "> ".to_owned()
    }

    fn unordered_item_prefix(&self) -> String {
        "- ".to_owned()
    }

    fn ordered_item_prefix(&self, number: i64) -> String {
        format!("{number}. ")
    }

    fn make_subblock_decorator(&self) -> Self {
        Self { links: Vec::new(), found: self.found.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_and_after() {
        for (html, text) in [
            ("<p>Hello,</p>\n<p>two\n  lines</p>", "Hello,\r\n\r\ntwo lines\r\n"),
            ("<a href=\"https://x/?a=b&amp;c=d\"> Open\n it </a>now", "Open it (https://x/?a=b&c=d) now\r\n"),
            ("See <a href=\"https://x.example\">https://x.example</a>.", "See https://x.example.\r\n"),
            ("<a href=x>a</a>, <a href=y>b</a>!", "a (x), b (y)!\r\n"),
            ("<h1>Head</h1><ul><li>one<li><b>two</b></ul><ol><li>x</ol>", "Head\r\n- one\r\n- two\r\n1. x\r\n"),
            ("<table><tr><td>a</td><td>b</td></tr></table>", "a\r\nb\r\n"),
            (
                "<style>p {}</style><title>t</title><script>s</script><!-- c --><p>x&nbsp;&nbsp;y</p>&nbsp;<p>z",
                "x y\r\n\r\nz\r\n",
            ),
            ("<blockquote>quoted</blockquote><pre>a  b\nc</pre>", "> quoted\r\n\r\na b\r\nc\r\n"),
            ("<img src=x alt=Logo><a href=\"#top\">up</a><a name=n>n</a>", "Logoupn\r\n"),
            ("<ol start=7><li>x</ol><ol start=9223372036854775807><li>x<li>y</ol>", "7. x\r\n1. x\r\n2. y\r\n"),
            ("größer ☕<br>E = mc<sup>2</sup>", "größer ☕\r\nE = mc²\r\n"),
        ] {
            assert_eq!(to_text(html).as_deref(), Some(text), "{html}");
        }
        for html in ["", "<p>&nbsp;</p>", "<img src=x>", "<hr>", &"<b>".repeat(6000), &"x".repeat(200_000)] {
            assert_eq!(to_text(html), None, "{}", &html[..html.len().min(20)]);
        }
    }

    #[test]
    fn links_are_found_wherever_they_stand() {
        for (html, expected) in [
            (
                "<p><a href=\"https://x/?a=b&amp;c\">a</a> <A HREF='y'>b</A><a name=n>c</a>",
                &["https://x/?a=b&c", "y"][..],
            ),
            (
                "<table><tr><td><ul><li><a href=x><b>a</b></a></ul></td><td><a href=y>b</a></td></tr></table>",
                &["x", "y"],
            ),
            ("<!-- <a href=x>a</a> --><blockquote><a href=\"\n y \">b</a></blockquote>", &["y"]),
            ("<a href=x><img src=y alt=z></a>", &["x"]),
            ("<a href=' https://x/a\r\n\t b\u{a0}\u{2028}c\n'>d</a>", &["https://x/a%20b%C2%A0%E2%80%A8c"]),
            (&"<a href=x>a</a>".repeat(5000), &[]),
        ] {
            assert_eq!(links(html), expected, "{}", &html[..html.len().min(80)]);
        }
    }

    #[test]
    fn deep_html_neither_panics_nor_overflows() {
        let tags = ["div", "b", "blockquote", "ul><li", "a href=x", "table><tr><td", "pre", "dl><dd", "p", "sup"];
        for tag in tags.into_iter().chain(["ol start=99999999999><li", "dd", "h1", "section", "dl><dt", "th"]) {
            for (levels, lines) in [(2400, 1), (30, 30_000), (1400, 30_000)] {
                let html = format!("<{tag}>").repeat(levels) + "<pre>" + &"x\r\n".repeat(lines);
                let text = to_text(&html).unwrap_or_default();
                assert!(text.len() <= 2 * html.len() + 4096, "{tag}: {}", text.len());
            }
        }
        to_text("<table><tr><td colspan=4000000000 rowspan=99999999>x</td><td>y</td></tr></table>");
        to_text(&"&".repeat(100_000));
        to_text(&format!("<a {}>", "b=c ".repeat(20_000)));
    }
}
