//! The DNS records that the new configuration needs: DKIM, SPF, DMARC, each with what to know about it. Looks nothing up:
//! `waxseal doctor` compares them with what is published.

use super::answers::UpstreamAnswers;
use super::files::DkimKeyFile;
use crate::dkim::DnsRecord;
use crate::doctor::{suggested_dmarc, suggested_spf};
use crate::relay::provider::ReturnPath;

/// What one mechanism needs in the DNS.
#[derive(Debug)]
pub struct DnsAdvice {
    /// What it is for; whole sentences.
    explanation: String,
    /// `None`: nothing is to be published.
    record: Option<DnsRecord>,
}

/// For a domain in DNS spelling; `key`: what signs its mail, `None` if the provider does.
pub fn advice(domain: &str, key: Option<&DkimKeyFile>, upstream: &UpstreamAnswers) -> Vec<DnsAdvice> {
    let title = upstream.preset.title;
    let dkim = match key {
        Some(key) => DnsAdvice {
            explanation: format!("DKIM: the public key with which receivers check the signature of {domain}."),
            record: Some(key.record.clone()),
        },
        None => DnsAdvice {
            explanation: format!(
                "DKIM: {title} signs your mail. Verify {domain} there, and publish the record that it shows."
            ),
            record: None,
        },
    };
    let dmarc = DnsAdvice {
        explanation:
            "DMARC: asks receivers for reports and changes nothing else. One that is there already stays as it is."
                .to_owned(),
        record: Some(suggested_dmarc(domain)),
    };
    vec![dkim, spf(domain, upstream), dmarc]
}

fn spf(domain: &str, upstream: &UpstreamAnswers) -> DnsAdvice {
    let title = upstream.preset.title;
    let rule = "A domain has one SPF record: if there is one, add to it what this one has more.";
    match (upstream.preset.return_path, &upstream.host) {
        _ if upstream.preset.is_embedded() => DnsAdvice {
            explanation: "SPF: the sandbox sends nothing, so there is nothing to permit.".to_owned(),
            record: None,
        },
        (ReturnPath::Ours { spf_include }, _) => DnsAdvice {
            explanation: format!("SPF: permits {title} to send for {domain}. {rule}"),
            record: Some(suggested_spf(domain, &format!("include:{spf_include}"))),
        },
        (ReturnPath::Unknown, Some(host)) => DnsAdvice {
            explanation: format!(
                "SPF: permits {host} to send for {domain}. If the provider names an \"include:\" of its own, write that in the \
                 place of \"a:{host}\". {rule}"
            ),
            record: Some(suggested_spf(domain, &format!("a:{host}"))),
        },
        _ => DnsAdvice {
            explanation: format!(
                "SPF: nothing to publish for {domain}: {title} sends under a return path of its own, whose SPF is its own. If \
                 you set up your own return path there, publish what {title} shows for it."
            ),
            record: None,
        },
    }
}

/// For the terminal: the three fields of a DNS form.
pub fn shown(advice: &[DnsAdvice]) -> String {
    let one = |advice: &DnsAdvice| match &advice.record {
        Some(record) => format!("{}\n\n{}\n", advice.explanation, indented(&record.to_string())),
        None => format!("{}\n", advice.explanation),
    };
    advice.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// For the file: the same as comments, and lines for a zone file, which `waxseal dkim verify --record` reads too.
pub fn zone_file(advice: &[DnsAdvice]) -> String {
    let one = |advice: &DnsAdvice| {
        let comment = match &advice.record {
            Some(record) => format!("{}\n{}", advice.explanation, indented(&record.to_string())),
            None => advice.explanation.clone(),
        };
        let comment: String = comment.lines().map(|line| format!("; {line}\n")).collect();
        let line = advice.record.as_ref().map_or_else(String::new, |record| format!("{}\n", record.zone_line()));
        format!("{comment}{line}")
    };
    let head = "; DNS records to publish, written by `waxseal init`: in comments as most DNS forms want them, below each as a line of\n\
                ; a zone file.\n\n";
    format!("{head}{}", advice.iter().map(one).collect::<Vec<_>>().join("\n"))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
