//! `waxseal doctor` and what a domain publishes: DKIM, SPF and DMARC, each wrong in every way that is common; and what a DNS
//! server that does not answer is worth, which is nothing.

use crate::support::dns::DnsServer;
use crate::support::doctor::{Report, doctor, publish, world};
use crate::support::gateway::Setup;
use crate::support::keys::TestKey;
use crate::support::upstream::ScriptedUpstream;
use waxseal::dkim::KeyAlgorithm;

struct World {
    dns: DnsServer,
    keys: Vec<TestKey>,
    setup: Setup,
    _scripted: ScriptedUpstream,
}

impl World {
    /// In which nothing is wrong, with lines for the upstream.
    async fn new(lines: &str) -> Self {
        let keys = vec![TestKey::new("wax1", KeyAlgorithm::Rsa2048)];
        let dns = DnsServer::start().await;
        publish(&dns, &keys);
        let scripted = ScriptedUpstream::start().await;
        let setup = world(&scripted, &dns, &keys, lines);
        Self { dns, keys, setup, _scripted: scripted }
    }

    async fn report(&self) -> Report {
        doctor(&self.setup, &[]).await
    }

    /// With one name that has other texts.
    async fn with_txt(&self, name: &str, texts: &[&str]) -> Report {
        self.dns.forget(name);
        for text in texts {
            self.dns.txt(name, text);
        }
        self.report().await
    }
}

/// With Google's presets at the place of the scripted server, so that SPF has to permit it.
async fn at_gmail() -> World {
    let world = World::new("").await;
    let setup = world.setup.config_with("provider = \"smtp\"", "provider = \"gmail\"");
    World { setup, ..world }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_publish_a_key_wrongly_is_told_with_the_record_to_paste() {
    let world = World::new("").await;
    let (name, text) = world.keys[0].record();
    let (head, tail) = text.split_at(255);
    let quoted = format!("\"{head}\" \"{tail}\"");
    let other = TestKey::new("wax1", KeyAlgorithm::Rsa2048).record().1;
    for (texts, words) in [
        (vec![], "not in the DNS"),
        (vec![other.as_str()], "another key"),
        (vec![head], "only the beginning"),
        (vec![head, tail], "split over several records"),
        (vec![quoted.as_str()], "quotes"),
        (vec!["v=DKIM1; k=rsa; p="], "revoked"),
        (vec!["something else"], "not a DKIM key"),
    ] {
        let report = world.with_txt(&name, &texts).await;
        report.assert("dkim.record", "failed", &[words]);
        assert_eq!(report.check("dkim.record")["record"]["value"], text, "{words}");
        assert_eq!(report.check("dkim.record")["record"]["name"], name);
        assert_eq!(report.status, 1);
    }
    let report = world.with_txt(&name, &[&text.replace("k=rsa", "t=y; k=rsa")]).await;
    report.assert("dkim.record", "warning", &["t=y"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_counts_if_it_leads_to_the_key_and_is_named_if_it_does_not() {
    let world = World::new("").await;
    let (name, text) = world.keys[0].record();
    world.dns.forget(&name).alias(&name, "keys.provider.example").txt("keys.provider.example", &text);
    world.report().await.assert("dkim.record", "ok", &[]);
    world.dns.forget("keys.provider.example");
    world.report().await.assert("dkim.record", "failed", &["CNAME", "keys.provider.example"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_to_which_the_form_added_the_domain_once_more_is_recognised() {
    let world = World::new("").await;
    let (name, text) = world.keys[0].record();
    world.dns.forget(&name).txt(&format!("{name}.example.com"), &text);
    world.report().await.assert("dkim.record", "failed", &["once more", "wax1._domainkey"]);
}

/// "Unknown is never a finding."
#[tokio::test(flavor = "multi_thread")]
async fn a_dns_server_that_does_not_answer_proves_nothing() {
    let world = World::new("").await;
    let (name, _) = world.keys[0].record();
    world.dns.fail(&name).fail("example.com").stay_silent_about("_dmarc.example.com");
    let report = world.report().await;
    for id in ["dkim.record", "spf.record", "dmarc.record"] {
        assert_eq!(report.verdict(id), "unknown", "{:#}", report.check(id));
    }
    assert_eq!((report.status, report.problems()), (0, Vec::new()));
    let cut_off = World::new("").await;
    cut_off.dns.cut_off();
    let report = cut_off.report().await;
    assert_eq!((report.status, report.verdict("dkim.record")), (0, "unknown"), "it denies every name");
}

#[tokio::test(flavor = "multi_thread")]
async fn spf_must_permit_a_provider_that_sends_under_our_return_path() {
    let world = at_gmail().await;
    world.dns.txt("_spf.google.com", "v=spf1 ip4:192.0.2.0/24 ~all");
    for (texts, id, verdict, words) in [
        (vec!["v=spf1 include:_spf.google.com ~all"], "spf.provider", "ok", "_spf.google.com"),
        (vec!["v=spf1 a mx -all"], "spf.provider", "failed", "v=spf1 a mx include:_spf.google.com -all"),
        (vec![], "spf.record", "failed", "v=spf1 include:_spf.google.com ~all"),
        (vec!["v=spf1 -all", "v=spf1 mx -all"], "spf.record", "failed", "2 SPF records"),
        (vec!["v=spf1 inclde:_spf.google.com -all"], "spf.record", "failed", "cannot be read"),
        (vec!["v=spf1 include:gone.example include:_spf.google.com -all"], "spf.record", "failed", "gone.example"),
        (vec!["v=spf1 include:_spf.google.com +all"], "spf.record", "warning", "whole world"),
    ] {
        world.with_txt("example.com", &texts).await.assert(id, verdict, &[words]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spf_is_evaluated_for_a_server_of_ones_own() {
    let world = World::new("").await;
    world.report().await.assert("spf.provider", "unknown", &["127.0.0.1", "SoftFail"]);
    let report = world.with_txt("example.com", &["v=spf1 ip4:127.0.0.0/8 -all"]).await;
    report.assert("spf.provider", "ok", &["127.0.0.1"]);
    world.dns.txt("_spf.example.net", "v=spf1 ip4:127.0.0.1 -all");
    let report = world.with_txt("example.com", &["v=spf1 include:_spf.example.net -all"]).await;
    report.assert("spf.provider", "ok", &["127.0.0.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_ten_look_ups_are_counted_through_every_include() {
    let world = World::new("").await;
    let chain = |number: usize| format!("n{number}.example.net");
    for number in 0..12 {
        world.dns.txt(&chain(number), &format!("v=spf1 include:{} ~all", chain(number + 1)));
    }
    world.dns.txt(&chain(12), "v=spf1 -all");
    let report = world.with_txt("example.com", &["v=spf1 include:n3.example.net ~all"]).await;
    report.assert("spf.lookups", "ok", &["10 of the 10"]);
    let report = world.with_txt("example.com", &["v=spf1 a include:n3.example.net ~all"]).await;
    report.assert("spf.lookups", "failed", &["11 of the 10"]);
    let report = world.with_txt("example.com", &["v=spf1 include:example.com ~all"]).await;
    report.assert("spf.lookups", "ok", &["1 of the 10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn dmarc_is_looked_for_as_receivers_do_and_must_be_one_record() {
    let world = World::new("").await;
    for (texts, verdict, words) in [
        (vec!["v=DMARC1; p=quarantine"], "ok", "quarantine"),
        (vec![], "warning", "v=DMARC1; p=none; rua=mailto:postmaster@example.com"),
        (vec!["v=DMARC1; p=none", "v=DMARC1; p=reject"], "failed", "2 DMARC records"),
        (vec!["v=DMARC1; p=whatever"], "failed", "cannot be read"),
        (vec!["v=DMARC1; rua=mailto:a@example.com"], "failed", "without p="),
    ] {
        world.with_txt("_dmarc.example.com", &texts).await.assert("dmarc.record", verdict, &[words]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_must_count_for_the_domain_in_from() {
    let world = World::new("").await;
    let below = ["--from", "reports@news.example.com"];
    let alignment = |report: &Report| {
        let all = report.checks("dmarc.alignment");
        let one = all.into_iter().find(|check| check["subject"] == "news.example.com");
        one.unwrap_or_else(|| panic!("{:#}", report.value))["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!(alignment(&doctor(&world.setup, &below).await), "ok", "relaxed: the key of the domain above");
    world.dns.forget("_dmarc.example.com").txt("_dmarc.example.com", "v=DMARC1; p=reject; adkim=s");
    assert_eq!(alignment(&doctor(&world.setup, &below).await), "failed", "strict");
    world.dns.txt("_dmarc.other.example", "v=DMARC1; p=none");
    let report = doctor(&world.setup, &["--from", "me@other.example"]).await;
    report.assert("dmarc.alignment", "warning", &["other.example", "waxseal dkim generate"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_provider_signs_that_is_not_known_here() {
    let world = World::new("sign = false").await;
    world.report().await.assert("dmarc.alignment", "unknown", &["provider"]);
}
