//! The mails of a run: a report as an application writes it, in text and HTML, the same octets but for its number.
//!
//! The number stands in the Message-ID, the subject and the recipient's address, so that no two mails are the same and the sink
//! can tell which have arrived.

/// Digits of a number. They are overwritten in place, so making the next mail costs no allocation.
const DIGITS: usize = 8;
const NUMBER: &[u8] = b"00000000";

/// The domain that signs.
pub const DOMAIN: &str = "example.com";
pub const SENDER: &str = "reports@example.com";

/// A mail as it is sent in DATA, with the final dot.
pub struct Mail {
    octets: Vec<u8>,
    places: Vec<usize>,
}

impl Mail {
    /// About `size` octets without the final dot.
    pub fn new(size: usize) -> Self {
        let mut text = String::with_capacity(size + 200);
        text.push_str(&header());
        text.push_str(
            "--=_report\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n",
        );
        // A third of the mail is its text; the markup of the HTML takes the rest.
        fill(&mut text, size / 3, |day| {
            format!("Day {day}: 1,204 unique visitors, 3,871 pageviews, bounce rate 41 %.\r\n")
        });
        text.push_str(
            "\r\n--=_report\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
            <!doctype html>\r\n<html><head><title>Weekly report</title></head><body><table>\r\n",
        );
        fill(&mut text, size.saturating_sub(60), |day| {
            format!("<tr><td>Day {day}</td><td style=\"color:#444\">1,204</td><td>3,871</td><td>41 %</td></tr>\r\n")
        });
        text.push_str("</table></body></html>\r\n\r\n--=_report--\r\n.\r\n");
        let octets = text.into_bytes();
        let places = memchr::memmem::find_iter(&octets, NUMBER).collect();
        Self { octets, places }
    }

    /// Octets of the message itself.
    pub fn size(&self) -> usize {
        self.octets.len() - b".\r\n".len()
    }

    /// What is sent for the mail of this number.
    pub fn numbered(&mut self, number: usize) -> &[u8] {
        let mut digits = [b'0'; DIGITS];
        let mut rest = number;
        for digit in digits.iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        for place in &self.places {
            self.octets[*place..*place + DIGITS].copy_from_slice(&digits);
        }
        &self.octets
    }
}

fn header() -> String {
    let number = String::from_utf8_lossy(NUMBER);
    format!(
        "From: Example Reports <{SENDER}>\r\n\
        To: reader{number}@example.net\r\n\
        Subject: Weekly report {number} for example.com\r\n\
        Date: Tue, 24 Nov 2026 03:00:00 +0000\r\n\
        Message-ID: <report.{number}@app.example.com>\r\n\
        MIME-Version: 1.0\r\n\
        Content-Type: multipart/alternative; boundary=\"=_report\"\r\n\
        X-Mailer: an application\r\n\r\n"
    )
}

fn fill(text: &mut String, up_to: usize, line: impl Fn(usize) -> String) {
    let mut day = 1;
    while text.len() < up_to {
        text.push_str(&line(day));
        day += 1;
    }
}

pub fn recipient(number: usize) -> String {
    format!("reader{number:0DIGITS$}@example.net")
}

/// The number in a RCPT command of the sink's client.
pub fn number_of(line: &[u8]) -> Option<usize> {
    let at = memchr::memmem::find(line, b"<reader")? + b"<reader".len();
    std::str::from_utf8(line.get(at..at + DIGITS)?).ok()?.parse().ok()
}
