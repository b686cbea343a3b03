//! What a published key record is worth beside the key on disk. Pure. RFC 6376 §3.6.1, RFC 8301 §3.2.

use super::dns::TxtRecord;
use crate::dkim::DnsRecord;
use base64::{Engine, engine::general_purpose::STANDARD};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Why receivers do not verify our signatures with this record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRecordFault {
    #[error("the record has another key")]
    Different,
    #[error("the record has another key, and one of only {bits} bits")]
    TooWeak { bits: usize },
    #[error("the record says that the key is revoked")]
    Revoked,
    #[error("the record has only the beginning of the key")]
    Truncated,
    #[error("the key is split over several records")]
    SplitOverRecords,
    #[error("the record has quotes or backslashes in its value")]
    Quoted,
    #[error("there are several key records of this name")]
    SeveralKeys,
    #[error("the record is for another kind of key")]
    WrongKind,
    #[error("the record does not permit this use of the key")]
    NotForUs,
    #[error("the record is not a DKIM key")]
    NotAKey,
}

/// `Ok(Some)`: it works, with a flaw.
pub fn judge(found: &[TxtRecord], expected: &DnsRecord) -> Result<Option<&'static str>, KeyRecordFault> {
    let texts: Vec<String> = found.iter().map(TxtRecord::text).collect();
    let wanted = Tags::of(expected.text());
    let keys: Vec<&String> = texts.iter().filter(|text| Tags::of(text).get("p").is_some()).collect();
    match keys.as_slice() {
        [] => Err(without_key(&texts, &wanted)),
        [only] => one(only, &texts, &wanted),
        several if several.iter().any(|text| one(text, &texts, &wanted).is_ok()) => Err(KeyRecordFault::SeveralKeys),
        [first, ..] => one(first, &texts, &wanted),
    }
}

fn one(text: &str, all: &[String], wanted: &Tags) -> Result<Option<&'static str>, KeyRecordFault> {
    let tags = Tags::of(text);
    let key = tags.get("p").unwrap_or_default();
    let ours = wanted.get("p").unwrap_or_default();
    if key.is_empty() {
        return Err(KeyRecordFault::Revoked);
    }
    if key.contains(['"', '\\']) || text.contains("\\;") || text.trim_start().starts_with('"') {
        return Err(KeyRecordFault::Quoted);
    }
    if key != ours {
        return Err(match () {
            () if ours.starts_with(key) && continues(key, ours, all) => KeyRecordFault::SplitOverRecords,
            () if ours.starts_with(key) => KeyRecordFault::Truncated,
            () => different(key),
        });
    }
    let kind = |tags: &Tags| tags.get("k").unwrap_or("rsa").to_ascii_lowercase();
    if kind(&tags) != kind(wanted) {
        return Err(KeyRecordFault::WrongKind);
    }
    let permits = |tag: &str, ours: &str| {
        tags.get(tag).is_none_or(|list| list.split(':').any(|word| word.eq_ignore_ascii_case(ours) || word == "*"))
    };
    if !permits("h", "sha256") || !permits("s", "email") {
        return Err(KeyRecordFault::NotForUs);
    }
    // RFC 6376 §3.6.1: v= is optional, and comes first if it is there.
    if tags.get("v").is_some_and(|version| version != "DKIM1") {
        return Err(KeyRecordFault::NotAKey);
    }
    let is_testing = tags.get("t").is_some_and(|flags| flags.split(':').any(|flag| flag == "y"));
    Ok(is_testing.then_some("t=y says that the domain is only testing, so some receivers ignore the signature"))
}

/// Another record has what comes next.
fn continues(key: &str, ours: &str, all: &[String]) -> bool {
    let rest = &ours[key.len()..];
    all.iter().map(|text| squeezed(text)).any(|text| text.len() > 8 && rest.starts_with(&text))
}

fn without_key(texts: &[String], wanted: &Tags) -> KeyRecordFault {
    let ours = wanted.get("p").unwrap_or_default();
    let has_part = |text: &String| {
        let text = squeezed(text);
        text.len() > 40 && ours.contains(&text)
    };
    match texts {
        _ if texts.iter().any(|text| text.contains("p=") && text.contains(['"', '\\'])) => KeyRecordFault::Quoted,
        _ if texts.iter().any(has_part) => KeyRecordFault::SplitOverRecords,
        _ => KeyRecordFault::NotAKey,
    }
}

fn different(key: &str) -> KeyRecordFault {
    const WEAK: usize = 2048;
    let der = STANDARD.decode(key).unwrap_or_default();
    let bits = SubjectPublicKeyInfo::from_der(&der).ok().and_then(|(_, info)| match info.parsed() {
        Ok(PublicKey::RSA(rsa)) => Some(rsa.key_size()),
        _ => None,
    });
    match bits {
        Some(bits) if bits < WEAK => KeyRecordFault::TooWeak { bits },
        _ => KeyRecordFault::Different,
    }
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

/// Tags of a record; white space within values does not count. RFC 6376 §3.2.
struct Tags(Vec<(String, String)>);

impl Tags {
    fn of(text: &str) -> Self {
        let pairs = text.split(';').filter_map(|part| part.split_once('='));
        Self(pairs.map(|(name, value)| (name.trim().trim_start_matches('"').to_owned(), squeezed(value))).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(tag, _)| tag == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dkim::{Selector, SigningKey};
    use crate::smtp::Domain;

    fn expected() -> DnsRecord {
        let pem = include_str!("../dkim/testdata/rsa2048.pem");
        let domain = Domain::parse("example.com").expect("a domain");
        let selector = Selector::parse("wax1").expect("a selector");
        DnsRecord::of(&SigningKey::from_pem(domain, selector, pem.as_bytes()).expect("a key"))
    }

    fn records(texts: &[&str]) -> Vec<TxtRecord> {
        texts.iter().map(|text| TxtRecord(text.as_bytes().chunks(255).map(<[u8]>::to_vec).collect())).collect()
    }

    /// A key of 1024 bits, made with openssl for this test.
    const WEAK: &str = "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDvVoZQbukt6nVxigpdxUUVGEhsbnub98R9KxFQIjjN\
        2XMYIfo1oIszGivnROAURrDvRzjZPFcOWMxM5bsbyV31APDwGk72MSzAyolWSKnKoQY1+3NAOKsj3WOtrGAhw0+L8K\
        uSthYsTiWDABh437Bf9QnUZJMf7IxFcgx5jRpC5wIDAQAB";

    #[test]
    fn each_way_to_publish_a_key_wrongly_is_told_apart() {
        use KeyRecordFault::*;
        let expected = expected();
        let text = expected.text();
        let key = text.split_once("p=").expect("a key").1;
        let (head, tail) = text.split_at(255);
        let quoted = format!("\"{head}\" \"{tail}\"");
        let cases: Vec<(Vec<String>, Result<bool, KeyRecordFault>)> = vec![
            (vec![text.to_owned()], Ok(false)),
            (vec!["google-site-verification=1".to_owned(), text.to_owned()], Ok(false)),
            (vec![format!("p={key}")], Ok(false)),
            (vec![format!("v=DKIM1; k=rsa; p={} {}", &key[..100], &key[100..])], Ok(false)),
            (vec![format!("v=DKIM1; t=y; k=rsa; p={key}")], Ok(true)),
            (vec![head.to_owned()], Err(Truncated)),
            (vec![head.to_owned(), tail.to_owned()], Err(SplitOverRecords)),
            (vec![quoted], Err(Quoted)),
            (vec![text.replace(';', "\\;")], Err(Quoted)),
            (vec!["v=DKIM1; k=rsa; p=".to_owned()], Err(Revoked)),
            (vec![format!("v=DKIM1; k=ed25519; p={key}")], Err(WrongKind)),
            (vec![format!("v=DKIM1; h=sha1; k=rsa; p={key}")], Err(NotForUs)),
            (vec![format!("v=DKIM1; s=other; k=rsa; p={key}")], Err(NotForUs)),
            (vec![text.to_owned(), WEAK.to_owned()], Err(SeveralKeys)),
            (vec![WEAK.to_owned()], Err(TooWeak { bits: 1024 })),
            (vec!["v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=".to_owned()], Err(Different)),
            (vec!["v=spf1 -all".to_owned()], Err(NotAKey)),
        ];
        for (texts, result) in cases {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            assert_eq!(judge(&records(&texts), &expected).map(|flaw| flaw.is_some()), result, "{texts:?}");
        }
    }
}
