//! The extensions a server offers in its EHLO reply, read and written.
//!
//! Unknown keywords are ignored. Extensions learned before TLS must not be used after it (RFC 3207 §4.2): callers drop
//! the value and read a new one. RFC 5321 §4.1.1.1, RFC 1870, 2920, 4954, 6152, 6531.

use crate::smtp::Reply;

/// SASL mechanisms that waxseal supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    Login,
}

/// The extensions that one server offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    pub starttls: bool,
    pub pipelining: bool,
    pub eight_bit_mime: bool,
    pub smtputf8: bool,
    pub enhanced_status_codes: bool,
    /// `Some(None)`: SIZE without a limit; octets otherwise.
    pub size: Option<Option<u64>>,
    pub auth_plain: bool,
    pub auth_login: bool,
    /// Everything in the AUTH lines, for the error if neither PLAIN nor LOGIN is there.
    pub auth_offered: Vec<String>,
}

impl Extensions {
    /// From the reply to EHLO; the first line (the server's name) is skipped.
    pub fn from_ehlo(reply: &Reply) -> Self {
        let mut extensions = Self::default();
        for line in reply.lines().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "STARTTLS" => extensions.starttls = true,
                "PIPELINING" => extensions.pipelining = true,
                "8BITMIME" => extensions.eight_bit_mime = true,
                "SMTPUTF8" => extensions.smtputf8 = true,
                "ENHANCEDSTATUSCODES" => extensions.enhanced_status_codes = true,
                "SIZE" => {
                    let limit = words.next().and_then(|word| word.parse().ok());
                    extensions.size = Some(limit.filter(|&limit| limit > 0));
                }
                "AUTH" => words.for_each(|word| extensions.add_mechanism(word)),
                // The form from before RFC 2554, still in use: "AUTH=PLAIN LOGIN".
                _ => {
                    if let Some(first) = keyword.strip_prefix("AUTH=") {
                        extensions.add_mechanism(first);
                        words.for_each(|word| extensions.add_mechanism(word));
                    }
                }
            }
        }
        extensions
    }

    fn add_mechanism(&mut self, name: &str) {
        let name = name.to_ascii_uppercase();
        match name.as_str() {
            "PLAIN" => self.auth_plain = true,
            "LOGIN" => self.auth_login = true,
            _ => {}
        }
        if !name.is_empty() && !self.auth_offered.contains(&name) {
            self.auth_offered.push(name);
        }
    }

    /// By the client's certificate. RFC 4422 Appendix A.
    pub fn offers_external(&self) -> bool {
        self.auth_offered.iter().any(|name| name == "EXTERNAL")
    }

    /// PLAIN before LOGIN, because it needs one round trip less.
    pub fn preferred_mechanism(&self) -> Option<Mechanism> {
        if self.auth_plain {
            Some(Mechanism::Plain)
        } else if self.auth_login {
            Some(Mechanism::Login)
        } else {
            None
        }
    }

    /// The keyword lines of an EHLO reply, without the first line. In upper case, because one of Plausible's clients
    /// compares them that way. PLAIN precedes LOGIN because the same client uses the first one it knows.
    pub fn keyword_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut add = |offered: bool, line: &str| {
            if offered {
                lines.push(line.to_owned());
            }
        };
        add(self.pipelining, "PIPELINING");
        add(self.eight_bit_mime, "8BITMIME");
        add(self.smtputf8, "SMTPUTF8");
        add(self.enhanced_status_codes, "ENHANCEDSTATUSCODES");
        add(self.starttls, "STARTTLS");
        add(self.auth_plain && self.auth_login, "AUTH PLAIN LOGIN");
        add(self.auth_plain && !self.auth_login, "AUTH PLAIN");
        add(!self.auth_plain && self.auth_login, "AUTH LOGIN");
        match self.size {
            Some(Some(limit)) => lines.push(format!("SIZE {limit}")),
            Some(None) => lines.push("SIZE".to_owned()),
            None => {}
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ehlo(lines: &[&str]) -> Extensions {
        Extensions::from_ehlo(&Reply::plain(250, lines.iter().map(|line| line.to_string())))
    }

    #[test]
    fn keywords_are_read_in_any_case_and_the_name_line_is_not_one() {
        let extensions = ehlo(&["STARTTLS hello", "pipelining", "Size 1000", "8bitmime", "AUTH=LOGIN", "X-UNKNOWN 1"]);
        assert!(extensions.pipelining && extensions.eight_bit_mime && !extensions.starttls);
        assert_eq!(extensions.size, Some(Some(1000)));
        assert_eq!(extensions.preferred_mechanism(), Some(Mechanism::Login));
    }

    #[test]
    fn plain_is_preferred_and_unknown_mechanisms_are_remembered_for_the_error() {
        assert_eq!(ehlo(&["x", "AUTH LOGIN PLAIN"]).preferred_mechanism(), Some(Mechanism::Plain));
        let foreign = ehlo(&["x", "AUTH CRAM-MD5 XOAUTH2"]);
        assert_eq!(foreign.preferred_mechanism(), None);
        assert_eq!(foreign.auth_offered, ["CRAM-MD5", "XOAUTH2"]);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let offered = Extensions {
            starttls: true,
            pipelining: true,
            eight_bit_mime: true,
            smtputf8: true,
            enhanced_status_codes: true,
            size: Some(Some(26_214_400)),
            auth_plain: true,
            auth_login: true,
            auth_offered: vec!["PLAIN".into(), "LOGIN".into()],
        };
        let lines: Vec<String> = std::iter::once("name".to_owned()).chain(offered.keyword_lines()).collect();
        assert_eq!(Extensions::from_ehlo(&Reply::plain(250, lines)), offered);
    }
}
