//! Converts HTML to plain text, for readers and filters that want it, and finds the links in it.
//!
//! html5ever's tokenizer reads the HTML, and the text is written token by token. There is no tree and no layout, so
//! work and memory grow with the size of the HTML and not with any number in it: spans, nesting and widths are ignored.
//! A link is written once, in parentheses after its text, as people write links.

mod writer;

use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts};
use std::cell::RefCell;
use writer::TextWriter;

/// In octets. Large providers cut off the display at about 100 KiB.
pub const LARGEST: usize = 128 * 1024;
/// In one element: the tokenizer compares each name with all earlier ones. Newsletters have ten.
const MOST_ATTRIBUTES: usize = 4000;

/// Why there is no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HtmlError {
    #[error("it has more than 128 KiB of HTML")]
    TooLarge,
    #[error("an element of its HTML has more than 4000 attributes")]
    TooManyAttributes,
    #[error("its text would be out of proportion to its HTML")]
    TextTooLong,
}

/// The most memory, in octets, that [`to_text`] or [`links`] needs for this many octets of HTML, besides the HTML
/// itself.
pub fn memory_needed(html: usize) -> usize {
    // The tokenizer's copy, the text twice, and the attributes, each of which needs some 120 octets and is at least
    // five octets long.
    24 * html.min(LARGEST) + 8192
}

/// Lines end with CRLF. `None` if no readable text is left.
pub fn to_text(html: &str) -> Result<Option<String>, HtmlError> {
    let text = writer::tidied(&read(html)?.text);
    Ok(text.chars().any(char::is_alphanumeric).then_some(text))
}

/// The addresses of links that have a text, in order.
pub fn links(html: &str) -> Result<Vec<String>, HtmlError> {
    Ok(read(html)?.links)
}

fn read(html: &str) -> Result<TextWriter, HtmlError> {
    if html.len() > LARGEST {
        return Err(HtmlError::TooLarge);
    }
    if has_too_many_attributes(html.as_bytes()) {
        return Err(HtmlError::TooManyAttributes);
    }
    let sink = Sink(RefCell::new(TextWriter::new(2 * html.len() + 4096)));
    let tokenizer = Tokenizer::new(sink, TokenizerOpts::default());
    let queue = BufferQueue::default();
    queue.push_back(StrTendril::from(html));
    // The sink never asks the tokenizer to stop.
    let _done = tokenizer.feed(&queue);
    tokenizer.end();
    let mut writer = tokenizer.sink.0.into_inner();
    writer.end_link();
    if writer.is_full() { Err(HtmlError::TextTooLong) } else { Ok(writer) }
}

/// Counts the possible separators of attributes, from what may open an element to the next `>`. The count is never too
/// low, except for values that contain a `>` themselves and are therefore longer.
fn has_too_many_attributes(html: &[u8]) -> bool {
    let mut in_tag = false;
    let mut separators = 0;
    let mut before = 0;
    for &byte in html {
        match byte {
            b'>' => (in_tag, separators) = (false, 0),
            byte if in_tag => separators += usize::from(b" \t\n\r\x0c/\"'".contains(&byte)),
            byte => in_tag = before == b'<' && byte.is_ascii_alphabetic(),
        }
        if separators > MOST_ATTRIBUTES {
            return true;
        }
        before = byte;
    }
    false
}

struct Sink(RefCell<TextWriter>);

impl TokenSink for Sink {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let mut writer = self.0.borrow_mut();
        match token {
            Token::CharacterTokens(text) => writer.text(&text),
            Token::TagToken(tag) => {
                let attribute = |name: &str| attribute(&tag, name);
                let is_start = tag.kind == TagKind::StartTag;
                writer.tag(&tag.name, is_start, attribute);
                if is_start && !tag.self_closing {
                    return raw_text(&tag.name);
                }
            }
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

fn attribute<'a>(tag: &'a Tag, name: &str) -> Option<&'a str> {
    tag.attrs.iter().find(|attribute| &*attribute.name.local == name).map(|attribute| &*attribute.value)
}

/// Elements that cannot contain other elements. HTML, "Parsing HTML documents", the rules for "in head" and "in body".
fn raw_text(name: &str) -> TokenSinkResult<()> {
    match name {
        "title" | "textarea" => TokenSinkResult::RawData(RawKind::Rcdata),
        "style" | "xmp" | "iframe" | "noembed" | "noframes" => TokenSinkResult::RawData(RawKind::Rawtext),
        "script" => TokenSinkResult::RawData(RawKind::ScriptData),
        "plaintext" => TokenSinkResult::Plaintext,
        _ => TokenSinkResult::Continue,
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
            ("<tr><td><p>a</p></td><td><div><p>b</p><p>c", "a\r\nb\r\n\r\nc\r\n"),
            (
                "<style>p {}</style><title>t</title><script>s</script><!-- c --><p>x&nbsp;&nbsp;y</p>&nbsp;<p>z",
                "x y\r\n\r\nz\r\n",
            ),
            ("<blockquote>quoted</blockquote><pre>a  b\nc</pre>", "> quoted\r\n\r\na b\r\nc\r\n"),
            ("<img src=x alt=Logo><a href=\"#top\">up</a><a name=n>n</a>", "Logoupn\r\n"),
            ("<ol start=7><li>x</ol><ol start=9223372036854775807><li>x<li>y</ol>", "7. x\r\n1. x\r\n2. y\r\n"),
            ("größer ☕<br>E = mc<sup>2</sup>", "größer ☕\r\nE = mc²\r\n"),
            ("<p>a<p><sup>1</sup>b<sup>nd</sup><sup></sup>", "a\r\n\r\n¹bnd\r\n"),
            ("<a href=x><p>a</p></a><p>b", "a (x)\r\n\r\nb\r\n"),
            ("&#xe000;x&#xe001; &#146;q&rsquo; &copy 1", "x ’q’ © 1\r\n"),
            ("<a href=\"&#xe001;y&#xe000;\">x</a>", "x (y)\r\n"),
            ("<ul><li><p>a</p><ol><li>b</ol><li>c</ul>d", "- a\r\n\r\n1. b\r\n- c\r\nd\r\n"),
            ("<pre>\na\n\n\nb</pre><xmp><b></xmp>", "a\r\n\r\nb\r\n\r\n<b>\r\n"),
            ("<!--[if mso]>a<![endif]--><![if !mso]>b<![endif]><svg><title/></svg>c", "bc\r\n"),
        ] {
            assert_eq!(to_text(html), Ok(Some(text.to_owned())), "{html}");
        }
        for html in ["", "<p>&nbsp;</p>", "<img src=x>", "<hr>", &"<b>".repeat(6000)] {
            assert_eq!(to_text(html), Ok(None), "{}", &html[..html.len().min(20)]);
        }
        assert_eq!(to_text(&"x".repeat(200_000)), Err(HtmlError::TooLarge));
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
            ("<a href=x></a><a href=y><p>a</p></a><a href=z>b", &["y", "z"]),
            (&"<a href=x>a</a>".repeat(5000), &["x"; 5000]),
        ] {
            let links = links(html).expect("few enough");
            assert_eq!(links, expected, "{}", &html[..html.len().min(80)]);
        }
        assert_eq!(links(&"<a href=x>a</a>".repeat(10_000)), Err(HtmlError::TooLarge));
    }

    #[test]
    fn deep_html_neither_panics_nor_overflows() {
        let tags = ["div", "b", "blockquote", "ul><li", "a href=x", "table><tr><td", "pre", "dl><dd", "p", "sup"];
        for tag in tags.into_iter().chain(["ol start=99999999999><li", "dd", "h1", "section", "dl><dt", "th"]) {
            for (levels, lines) in [(2400, 1), (30, 30_000), (1400, 30_000)] {
                let html = format!("<{tag}>").repeat(levels) + "<pre>" + &"x\r\n".repeat(lines);
                let text = to_text(&html).unwrap_or_default().unwrap_or_default();
                assert!(text.len() <= 2 * html.len() + 4096, "{tag}: {}", text.len());
            }
        }
        let table = "<table><tr><td colspan=4000000000 rowspan=99999999>x</td><td>y</td></tr></table>";
        assert_eq!(to_text(table), Ok(Some("x\r\ny\r\n".to_owned())));
        assert_eq!(to_text(&"&".repeat(100_000)), Ok(None));
        assert_eq!(to_text(&format!("<a {}>", "b=c ".repeat(20_000))), Err(HtmlError::TooManyAttributes));
    }
}
