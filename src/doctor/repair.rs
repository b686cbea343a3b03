//! The repairs without which receivers refuse mail or take it for spam: whether one of them is turned off.

use super::check::CheckResult;
use super::examination::{Examination, Results};
use crate::observe::CheckId;

/// Steps of `[repair]`, and what happens without them to the mail of applications that need them.
const NEEDED: &[(&str, &str)] = &[
    ("message_id", "Gmail refuses mail without a Message-ID (550 5.7.1)"),
    ("date", "mail without a Date counts as spam"),
    ("display_names", "mail with an empty name in From counts as spam"),
    ("flatten", "a needless multipart/mixed counts as spam with some receivers"),
    ("text_part", "mail in HTML alone counts as spam"),
];

pub fn probe(exam: &Examination, out: &Results) {
    let off = exam.settings.repairs.turned_off();
    let missed: Vec<_> = NEEDED.iter().filter(|(step, _)| off.contains(step)).collect();
    if missed.is_empty() {
        out.put(CheckResult::ok(CheckId::IntakeRepair, "", "what receivers insist on is repaired in every mail"));
    }
    for (step, effect) in missed {
        out.put(
            CheckResult::warning(CheckId::IntakeRepair, step, format!("the repair `{step}` is turned off"))
                .cause(format!("{effect}, and some applications send it"))
                .fix(format!("remove `{step} = false` from [repair]")),
        );
    }
}
