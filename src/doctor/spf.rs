//! SPF: whether a domain's record is there, can be evaluated, and permits the provider. RFC 7208.

use super::check::CheckResult;
use super::dns::DnsAnswer;
use super::examination::{Examination, Results};
use super::spf_walk::{self, MOST_LOOKUPS, NoSpf, SpfWalk};
use crate::config::Provider;
use crate::dkim::DnsRecord;
use crate::observe::CheckId;
use crate::relay::provider::ReturnPath;
use mail_auth::SpfResult;
use std::net::IpAddr;

/// Each costs an evaluation.
const MOST_ADDRESSES: usize = 4;

pub async fn probe(exam: &Examination, domain: &str, out: &Results) {
    match spf_walk::walk(&exam.dns, domain).await {
        Ok(walk) => {
            out.put(record(domain, &walk));
            out.put(lookups(domain, &walk));
            for result in providers(exam, domain, &walk).await {
                out.put(result);
            }
        }
        Err(none) => out.put(without(exam, domain, &none)),
    }
}

/// The `include` that each upstream wants in the From domain's record.
fn wanted(exam: &Examination) -> Vec<(&str, &'static str)> {
    let of = |upstream: &'static crate::relay::provider::Preset| match upstream.return_path {
        ReturnPath::Ours { spf_include } => Some(spf_include),
        ReturnPath::Providers | ReturnPath::Unknown => None,
    };
    exam.upstreams().filter_map(|upstream| Some((upstream.preset.title, of(upstream.preset)?))).collect()
}

fn record(domain: &str, walk: &SpfWalk) -> CheckResult {
    let id = CheckId::SpfRecord;
    if walk.permits_all {
        return CheckResult::warning(id, domain, "the SPF record permits the whole world to send")
            .evidence(walk.text.clone())
            .cause("it ends in +all")
            .fix("end it with ~all");
    }
    match walk.broken.as_slice() {
        [] => CheckResult::ok(id, domain, "the SPF record can be read").evidence(walk.text.clone()),
        broken => {
            CheckResult::failed(id, domain, format!("the SPF record includes {}, which has none", broken.join(", ")))
                .evidence(walk.text.clone())
                .cause("receivers take that for a permanent error, and the whole record does not count")
                .fix("remove that include, or correct its name")
        }
    }
}

fn lookups(domain: &str, walk: &SpfWalk) -> CheckResult {
    let id = CheckId::SpfLookups;
    let text = format!("it costs {} of the {MOST_LOOKUPS} look-ups that are allowed", walk.lookups);
    if walk.lookups > MOST_LOOKUPS {
        return CheckResult::failed(id, domain, text)
            .evidence(walk.text.clone())
            .cause("receivers stop after ten look-ups, and the whole record does not count (RFC 7208 §4.6.4)")
            .fix("remove includes of services that no longer send for you");
    }
    match walk.unknown.as_slice() {
        [] => CheckResult::ok(id, domain, text),
        unknown => CheckResult::unknown(id, domain, format!("it costs at least {} look-ups", walk.lookups))
            .evidence(unknown.join("; ")),
    }
}

async fn providers(exam: &Examination, domain: &str, walk: &SpfWalk) -> Vec<CheckResult> {
    let id = CheckId::SpfProvider;
    let wanted = wanted(exam);
    if wanted.is_empty() {
        return match own_server(exam) {
            None => {
                let text = "the provider sends under a return path of its own, whose SPF is its own";
                vec![CheckResult::not_applicable(id, domain, text)]
            }
            Some(server) => vec![of_own_server(exam, domain, walk, &server).await],
        };
    }
    let judge = |(title, include): (&str, &'static str)| {
        if walk.includes.iter().any(|included| included == include) {
            return CheckResult::ok(id, domain, format!("it permits {title} (include:{include})"));
        }
        let result = if walk.unknown.is_empty() {
            CheckResult::failed(id, domain, format!("the SPF record does not permit {title}"))
        } else {
            CheckResult::unknown(id, domain, format!("whether it permits {title} could not be looked up"))
        };
        result
            .evidence(walk.text.clone())
            .cause(format!("include:{include} is missing in it"))
            .fix("change the record to this one")
            .record(domain, with_include(&walk.text, include))
    };
    wanted.into_iter().map(judge).collect()
}

/// The host of an upstream whose sending addresses nobody has told us.
fn own_server(exam: &Examination) -> Option<String> {
    exam.upstreams().find_map(|upstream| match &upstream.provider {
        Provider::Smtp { endpoint, .. } if upstream.preset.return_path == ReturnPath::Unknown => {
            Some(endpoint.host.trim_start_matches('[').trim_end_matches(']').to_owned())
        }
        _ => None,
    })
}

/// Evaluated for the addresses by which the server is reached: if it sends from another one, that proves nothing.
async fn of_own_server(exam: &Examination, domain: &str, walk: &SpfWalk, server: &str) -> CheckResult {
    let id = CheckId::SpfProvider;
    let mut judged = Vec::new();
    for address in addresses(exam, server).await.into_iter().take(MOST_ADDRESSES) {
        match exam.dns.spf(address, &exam.settings.ehlo_name, domain).await {
            Some(SpfResult::Pass) => {
                return CheckResult::ok(id, domain, format!("it permits {server} ({address})"));
            }
            Some(result) => judged.push(format!("{address}: {result:?}")),
            None => {}
        }
    }
    CheckResult::unknown(id, domain, format!("it does not permit the addresses by which {server} is reached"))
        .evidence(format!("{}; {}", walk.text, judged.join(", ")))
        .cause("which addresses it sends from is not known here")
        .fix("the record must have those, as in ip4:192.0.2.10 or a:smtp.example.com")
}

async fn addresses(exam: &Examination, server: &str) -> Vec<IpAddr> {
    if let Ok(address) = server.parse() {
        return vec![address];
    }
    let (ipv4, ipv6) = tokio::join!(exam.dns.ipv4(server), exam.dns.ipv6(server));
    let mut found = Vec::new();
    if let DnsAnswer::Found(ipv4) = ipv4 {
        found.extend(ipv4.into_iter().map(IpAddr::from));
    }
    if let DnsAnswer::Found(ipv6) = ipv6 {
        found.extend(ipv6.into_iter().map(IpAddr::from));
    }
    found
}

/// Before the first `all`, because what follows it is not read.
fn with_include(text: &str, include: &str) -> String {
    let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let is_end = |word: &String| {
        word.trim_start_matches(['+', '-', '~', '?']).eq_ignore_ascii_case("all") || word.starts_with("redirect=")
    };
    let at = words.iter().position(is_end).unwrap_or(words.len());
    words.insert(at, format!("include:{include}"));
    words.join(" ")
}

/// For a domain that has none. `mechanisms`: who may send, such as `include:_spf.example.net`; may be empty.
pub fn suggested(domain: &str, mechanisms: &str) -> DnsRecord {
    let words = ["v=spf1", mechanisms, "~all"].into_iter().filter(|word| !word.is_empty());
    DnsRecord::txt(domain, words.collect::<Vec<_>>().join(" "))
}

fn without(exam: &Examination, domain: &str, none: &NoSpf) -> CheckResult {
    let id = CheckId::SpfRecord;
    let wanted = wanted(exam);
    let includes: String = wanted.iter().map(|(_, include)| format!(" include:{include}")).collect();
    let proposed = suggested(domain, includes.trim_start()).text().to_owned();
    match none {
        NoSpf::Unknown(error) => CheckResult::unknown(id, domain, error.clone()),
        NoSpf::Several(texts) => CheckResult::failed(id, domain, format!("the domain has {} SPF records", texts.len()))
            .evidence(texts.join(" | "))
            .cause("receivers take more than one for a permanent error, and none of them counts")
            .fix("join them into one record"),
        NoSpf::Malformed(text) => CheckResult::failed(id, domain, "the SPF record cannot be read")
            .evidence(text.clone())
            .cause("receivers take a mistake in it for a permanent error")
            .fix("correct it; a word that is neither a mechanism nor a modifier, or a bad address, is enough"),
        NoSpf::Missing if wanted.is_empty() => {
            let text = "the domain has no SPF record; the provider sends under a return path of its own";
            match exam.upstreams().all(|upstream| upstream.preset.return_path == ReturnPath::Providers) {
                true => CheckResult::not_applicable(id, domain, text),
                false => CheckResult::warning(id, domain, "the domain has no SPF record")
                    .cause("receivers cannot tell whether your server may send for it")
                    .fix(
                        "publish one with the addresses that your server sends from, as in v=spf1 ip4:192.0.2.10 ~all",
                    ),
            }
        }
        NoSpf::Missing => CheckResult::failed(id, domain, "the domain has no SPF record")
            .evidence(format!("{} has no such TXT record", exam.dns.server))
            .cause("receivers cannot tell whether the provider may send for it")
            .fix("publish this record; if other servers send for the domain, name them in it, too")
            .record(domain, proposed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_include_is_added_where_it_is_read() {
        for (text, expected) in [
            ("v=spf1 -all", "v=spf1 include:p.example -all"),
            ("v=spf1 a mx ~ALL", "v=spf1 a mx include:p.example ~ALL"),
            ("v=spf1 ip4:192.0.2.1", "v=spf1 ip4:192.0.2.1 include:p.example"),
            ("v=spf1 redirect=other.example", "v=spf1 include:p.example redirect=other.example"),
        ] {
            assert_eq!(with_include(text, "p.example"), expected);
        }
    }
}
