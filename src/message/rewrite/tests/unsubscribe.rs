//! `list_unsubscribe`: which link of which text becomes the header, and when one-click is offered.

use super::*;

const GLOB: &str = "*/unsubscribe*";
const HTML: &str = "Content-Type: text/html; charset=utf-8\n";
const PLAIN: &str = "Subject: s\n";

/// What is added to the header, and the notes.
fn added(one_click: bool, header: &str, body: &str) -> (String, String) {
    let wanted = ListUnsubscribe { link: glob(GLOB), one_click };
    let rules = always(RuleActions { list_unsubscribe: Some(wanted), ..RuleActions::default() });
    let before = draft(&format!("{header}\n{body}"));
    let rewritten = rules.apply(&before, &Origin::default());
    let notes: Vec<_> = rewritten.notes.iter().map(|note| note.trouble.to_string()).collect();
    let after = kept(rewritten).draft.message;
    let added = after.header().strip_prefix(before.message.header()).expect("added below the others");
    (String::from_utf8_lossy(added).replace("\r\n", "\n"), notes.join(","))
}

#[test]
fn the_first_link_that_fits_becomes_the_header() {
    for (header, body, after) in [
        (PLAIN, "https://x/about https://x/unsubscribe?a=b. https://y/unsubscribe", "<https://x/unsubscribe?a=b>"),
        (PLAIN, "(http://x/unsubscribe)", "<http://x/unsubscribe>"),
        (PLAIN, "mailto:a@b?subject=x/unsubscribe", "<mailto:a@b?subject=x/unsubscribe>"),
        (PLAIN, "https://x/für/unsubscribe", "<https://x/f%C3%BCr/unsubscribe>"),
        (HTML, "<a href=\"https://x/unsubscribe?a&amp;b,c\">x</a>", "<https://x/unsubscribe?a&b%2Cc>"),
        (HTML, "<a href='HTTPS://X/unsubscribe'><img src=i alt=Leave></a>", "<HTTPS://X/unsubscribe>"),
        (HTML, "<p>https://x/unsubscribe</p>", ""),
        (HTML, "<a href=\"javascript:x/unsubscribe\">x</a>", ""),
        (PLAIN, "ftp://x/unsubscribe", ""),
        (PLAIN, "https://x/about", ""),
        ("List-Unsubscribe: <https://own>\n", "https://x/unsubscribe", ""),
        ("Content-Type: text/plain; name=x\n", "https://x/unsubscribe", ""),
    ] {
        let expected = if after.is_empty() { String::new() } else { format!("List-Unsubscribe: {after}\n") };
        assert_eq!(added(false, header, body), (expected, String::new()), "{header}{body}");
    }
}

#[test]
fn one_click_is_promised_of_https_alone() {
    const POST: &str = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\n";
    const HTTPS: &str = "List-Unsubscribe: <https://x/unsubscribe>\n";
    const HTTP: &str = "List-Unsubscribe: <http://x/unsubscribe>\n";
    for (header, body, after, note) in [
        (PLAIN, "https://x/unsubscribe", format!("{HTTPS}{POST}"), ""),
        (PLAIN, "http://x/unsubscribe", HTTP.into(), "only a link with https can take one click"),
        (PLAIN, "https://x/about", String::new(), ""),
        ("List-Unsubscribe: <https://own>\n", "https://x/unsubscribe", String::new(), ""),
        (POST, "https://x/unsubscribe", HTTPS.into(), ""),
    ] {
        assert_eq!(added(true, header, body), (after, note.to_owned()), "{header}{body}");
    }
}

#[test]
fn what_would_be_no_link_in_a_header_stays_out_of_it() {
    const NO_ADDRESS: &str = "the link in the text is not an address that fits in a header";
    const TOO_LONG: &str = "a header line must not be longer than 998 octets";
    let long = format!("https://x/unsubscribe{}", "y".repeat(1000));
    for (header, body, note) in [
        (HTML, "<a href=\"https://x/unsubscribe?&gt;,&lt;https://evil\">x</a>", NO_ADDRESS),
        (HTML, "<a href=\"https://x/unsubscribe&#7;Bcc:a\">x</a>", NO_ADDRESS),
        (PLAIN, &long, TOO_LONG),
    ] {
        assert_eq!(added(true, header, body), (String::new(), note.to_owned()), "{body}");
    }
}
