//! DMARC: whether a From domain has a record, and whether our signature counts for it. RFC 7489 §3.1, §6.6.3.

use super::check::CheckResult;
use super::dns::{DnsAnswer, TxtRecord};
use super::examination::{Examination, Results};
use crate::dkim::DnsRecord;
use crate::observe::CheckId;
use crate::relay::provider::Signing;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::dmarc::{Alignment, Dmarc, Policy};

/// Names that are asked for a domain, so that a long one costs a bounded number of look-ups.
const MOST_PARENTS: usize = 6;

/// A record and the domain that has it.
struct DmarcFound {
    domain: String,
    text: String,
    record: Dmarc,
}

pub async fn probe(exam: &Examination, domain: &str, out: &Results) {
    let found = match find(exam, domain).await {
        Ok(found) => found,
        Err(result) => {
            out.put(*result);
            return;
        }
    };
    let policy = policy(&found, domain);
    let inherited = if found.domain == domain { String::new() } else { format!(" (of {})", found.domain) };
    let text = format!("{}{inherited}", shown(policy));
    out.put(CheckResult::ok(CheckId::DmarcRecord, domain, text).evidence(found.text.clone()));
    out.put(alignment(exam, domain, &found, policy));
}

/// From the domain up, as receivers look.
async fn find(exam: &Examination, domain: &str) -> Result<DmarcFound, Box<CheckResult>> {
    let id = CheckId::DmarcRecord;
    let mut at = domain;
    for _ in 0..MOST_PARENTS {
        let name = format!("_dmarc.{at}");
        match exam.dns.txt(&name).await {
            DnsAnswer::Unknown(error) => return Err(Box::new(CheckResult::unknown(id, domain, error))),
            DnsAnswer::Missing => {}
            DnsAnswer::Found(found) => {
                let texts: Vec<String> = found.iter().map(TxtRecord::text).filter(|text| is_dmarc(text)).collect();
                match texts.as_slice() {
                    [] => {}
                    [text] => return read(domain, at, text),
                    several => {
                        return Err(Box::new(
                            CheckResult::failed(id, domain, format!("{name} has {} DMARC records", several.len()))
                                .evidence(several.join(" | "))
                                .cause("receivers ignore all of them if there is more than one")
                                .fix("leave one of them"),
                        ));
                    }
                }
            }
        }
        match at.split_once('.') {
            Some((_, parent)) if parent.contains('.') => at = parent,
            _ => break,
        }
    }
    Err(Box::new(
        CheckResult::warning(id, domain, "the domain has no DMARC record")
            .evidence(format!("{} has no TXT record of the name _dmarc.{domain}", exam.dns.server))
            .cause("Gmail and Yahoo require one of everybody who sends much, and others trust mail without it less")
            .fix("publish this record; p=none changes nothing for your mail, and reports come to the address")
            .record(suggested(domain).name(), suggested(domain).text()),
    ))
}

/// For a domain that has none: it changes nothing for its mail.
pub fn suggested(domain: &str) -> DnsRecord {
    DnsRecord::txt(format!("_dmarc.{domain}"), format!("v=DMARC1; p=none; rua=mailto:postmaster@{domain}"))
}

fn is_dmarc(text: &str) -> bool {
    text.trim_start().to_ascii_lowercase().starts_with("v=dmarc1")
}

fn read(domain: &str, at: &str, text: &str) -> Result<DmarcFound, Box<CheckResult>> {
    let parsed = Dmarc::parse(text.as_bytes());
    match parsed {
        Ok(record) if record.p != Policy::Unspecified => {
            Ok(DmarcFound { domain: at.to_owned(), text: text.to_owned(), record })
        }
        _ => Err(Box::new(
            CheckResult::failed(CheckId::DmarcRecord, domain, "the DMARC record cannot be read")
                .evidence(text)
                .cause("receivers ignore a record with a mistake, or without p=")
                .fix("replace it by this one, or correct it")
                .record(suggested(at).name(), suggested(at).text()),
        )),
    }
}

fn policy(found: &DmarcFound, domain: &str) -> Policy {
    if found.domain == domain { found.record.p } else { found.record.sp }
}

fn shown(policy: Policy) -> &'static str {
    match policy {
        Policy::Reject => "p=reject: mail that fails is refused",
        Policy::Quarantine => "p=quarantine: mail that fails goes to spam",
        Policy::None | Policy::Unspecified => "p=none: mail that fails is reported only",
    }
}

/// The domain in the signature must be that of From, or, if the record is relaxed, belong to it.
fn alignment(exam: &Examination, domain: &str, found: &DmarcFound, policy: Policy) -> CheckResult {
    let id = CheckId::DmarcAlignment;
    let signs = exam.upstreams().any(|upstream| upstream.profile.signing != Signing::LeftToProvider);
    if !signs {
        return CheckResult::unknown(id, domain, "the provider signs, so it depends on what is set up there")
            .fix("authenticate the domain in the provider's settings, so that its signature has your domain");
    }
    let signing = |key: &String| domain == key || domain.ends_with(&format!(".{key}"));
    let keys: Vec<String> =
        exam.settings.dkim.iter().filter_map(|key| crate::dkim::dns_domain(&key.domain).ok()).filter(signing).collect();
    let is_strict = found.record.adkim == Alignment::Strict;
    let is_aligned = |key: &String| !is_strict || key == domain;
    let problem = match keys.first() {
        Some(_) if keys.iter().any(is_aligned) => {
            let key = keys.iter().find(|key| is_aligned(key)).cloned().unwrap_or_default();
            return CheckResult::ok(id, domain, format!("mail is signed with d={key}, which counts for it"));
        }
        Some(key) => (
            format!("adkim=s asks for a signature of {domain} itself, and the key is for {key}"),
            format!("add a [[dkim]] key for {domain}, or set adkim=r in the DMARC record"),
        ),
        None => (
            format!("there is no DKIM key for {domain}: its mail passes DMARC only if SPF permits the provider"),
            format!("make a key: waxseal dkim generate {domain} --selector wax1"),
        ),
    };
    let result = match policy {
        Policy::Reject | Policy::Quarantine => {
            CheckResult::failed(id, domain, "our signature does not count for this domain")
        }
        _ => CheckResult::warning(id, domain, "our signature does not count for this domain"),
    };
    result.evidence(found.text.clone()).cause(problem.0).fix(problem.1)
}
