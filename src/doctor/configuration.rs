//! The configuration: what would keep the gateway from starting, and what it warns about.

use super::check::CheckResult;
use super::examination::{Examination, Results};
use crate::config::{Located, Problems, Provider};
use crate::observe::CheckId;

/// For a configuration that does not start: nothing else can be looked at.
pub fn of_problems(problems: &Problems) -> Vec<CheckResult> {
    let one = |located: Located<'_>| {
        CheckResult::failed(CheckId::Configuration, "", "the gateway does not start with this configuration")
            .evidence(located.to_string())
            .cause("something in it is wrong or missing, and nothing is started half-way")
            .fix("correct it, then run `waxseal check` until it finds nothing")
    };
    problems.iter().map(one).collect()
}

pub fn probe(exam: &Examination, out: &Results) {
    let settings = &exam.settings;
    let file = settings.file.as_ref().map_or("the environment".to_owned(), |file| file.display().to_string());
    if settings.warnings.is_empty() {
        out.put(CheckResult::ok(CheckId::Configuration, "", format!("{file} is valid")));
    }
    for warning in settings.warnings.iter() {
        out.put(
            CheckResult::warning(CheckId::Configuration, "", "the configuration starts, with a warning")
                .evidence(warning.to_string())
                .fix("see `waxseal check`"),
        );
    }
    let are_kept = |upstream: &&crate::config::UpstreamSettings| matches!(upstream.provider, Provider::Sandbox);
    for upstream in exam.upstreams().filter(are_kept) {
        out.put(CheckResult::not_applicable(
            CheckId::UpstreamConnect,
            &upstream.name,
            "the sandbox is inside the gateway: mail is kept there and NOT sent",
        ));
    }
}
