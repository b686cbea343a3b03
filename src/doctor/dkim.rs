//! Each DKIM key against its record in the DNS.

use super::check::CheckResult;
use super::dkim_record::{self, KeyRecordFault};
use super::dns::{DnsAnswer, TxtRecord};
use super::examination::{Examination, Results};
use crate::dkim::DnsRecord;
use crate::observe::CheckId;

pub async fn probe(exam: &Examination, at: usize, out: &Results) {
    let Some(settings) = exam.settings.dkim.get(at) else { return };
    let Some(key) = &settings.key else {
        let name = format!("{}._domainkey.{}", settings.selector, settings.domain);
        let text = "the key does not exist yet; the first start creates it and prints its record";
        out.put(CheckResult::not_applicable(CheckId::DkimRecord, &name, text));
        return;
    };
    let expected = DnsRecord::of(key);
    out.put(compare(exam, &expected).await);
}

async fn compare(exam: &Examination, expected: &DnsRecord) -> CheckResult {
    let id = CheckId::DkimRecord;
    let name = expected.name();
    let found = match exam.dns.txt(name).await {
        DnsAnswer::Unknown(error) => return CheckResult::unknown(id, name, error),
        DnsAnswer::Missing => return missing(exam, expected).await,
        DnsAnswer::Found(found) => found,
    };
    let shown = found.iter().map(TxtRecord::text).collect::<Vec<_>>().join(" | ");
    match dkim_record::judge(&found, expected) {
        Ok(None) => CheckResult::ok(id, name, "the record has this key").evidence(format!("asked {}", exam.dns.server)),
        Ok(Some(warning)) => CheckResult::warning(id, name, "the record has this key, with a flaw")
            .evidence(shortened(&shown))
            .cause(warning)
            .fix("publish the record as it stands here")
            .record(name, expected.text()),
        Err(fault) => CheckResult::failed(id, name, fault.to_string())
            .evidence(shortened(&shown))
            .cause(fault.cause())
            .fix(fault.fix())
            .record(name, expected.text()),
    }
}

async fn missing(exam: &Examination, expected: &DnsRecord) -> CheckResult {
    let name = expected.name();
    let result = CheckResult::failed(CheckId::DkimRecord, name, "the public key is not in the DNS");
    let result = result.evidence(format!("{} has no TXT record of this name", exam.dns.server));
    let result = result.record(name, expected.text());
    if let DnsAnswer::Found(targets) = exam.dns.alias(name).await {
        let target = targets.first().cloned().unwrap_or_default();
        return result
            .cause(format!("the name is an alias (CNAME) of {target}, which has no such record"))
            .fix("publish the record at the alias's target, or remove the CNAME and publish it here");
    }
    // Forms at DNS providers add the domain by themselves.
    let domain = name.split_once("._domainkey.").map_or("", |(_, domain)| domain);
    let doubled = format!("{name}.{domain}");
    if let DnsAnswer::Found(found) = exam.dns.txt(&doubled).await
        && dkim_record::judge(&found, expected).is_ok()
    {
        return result
            .cause(format!("it was published as {doubled}: the form of the DNS provider added the domain once more"))
            .fix(format!(
                "enter the name without the domain: {}",
                name.trim_end_matches(domain).trim_end_matches('.')
            ));
    }
    result
        .cause("receivers cannot check the signature, so it counts as none")
        .fix("publish this record, and give it some minutes to an hour")
}

fn shortened(text: &str) -> String {
    const SHOWN: usize = 300;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

impl KeyRecordFault {
    fn cause(&self) -> &'static str {
        match self {
            Self::Different => {
                "the key was replaced and its record was not changed, or the selector belongs to another program"
            }
            Self::TooWeak { .. } => {
                "the record has another key, and receivers do not count keys below 1024 bits, some none below 2048"
            }
            Self::Revoked => "an empty p= says that this key must not be used any more",
            Self::Truncated => "a string of a TXT record holds 255 characters; what was longer was cut off",
            Self::SplitOverRecords => {
                "the parts of a long key were entered as records of their own; they belong into one"
            }
            Self::Quoted => {
                "the quotes or backslashes of a zone file were entered into a form, and are now part of the value"
            }
            Self::SeveralKeys => {
                "receivers take any one of several records of a name, and then the signature fails now and then"
            }
            Self::WrongKind => "the record's k= does not fit this key",
            Self::NotForUs => "the record's h= or s= excludes SHA-256 or e-mail",
            Self::NotAKey => "there is a TXT record of this name, and it is not a DKIM key",
        }
    }

    fn fix(&self) -> &'static str {
        match self {
            Self::Different | Self::TooWeak { .. } | Self::Revoked => {
                "publish this record in place of the other one, unless another program signs with that; then choose another \
                 `selector`"
            }
            Self::SplitOverRecords | Self::Truncated => {
                "enter the whole value in one record; a form that takes no more than 255 characters wants it as several strings \
                 in quotes, as `waxseal dkim record` prints for zone files"
            }
            _ => "replace what is there by this record",
        }
    }
}
