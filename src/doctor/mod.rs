//! `waxseal doctor`: looks at every link between the application and the recipient, and says which one is broken and what
//! to do. One probe per file; each returns [`CheckResult`]s.
//!
//! Reads only: no probe sends a mail, except the test mail that the operator asks for. Every probe is bounded and none
//! needs the result of another. It is never a container's health check: it connects to providers and logs in.

mod check;
mod clock;
mod configuration;
mod data_dir;
mod dkim;
mod dkim_record;
mod dmarc;
mod dns;
mod domains;
mod examination;
mod listener;
mod published;
mod queue;
mod repair;
mod reverse;
mod run;
mod spf;
mod spf_walk;
mod test_mail;
mod upstream;

pub use check::{CheckResult, CheckVerdict};
pub use configuration::of_problems;
pub use dmarc::suggested as suggested_dmarc;
pub use examination::{DoctorRequest, Examination, QueueAccess, QueueOpener};
pub use published::is_published;
pub use run::ExaminationPart;
pub use spf::suggested as suggested_spf;

#[cfg(test)]
mod tests {
    use crate::observe::CheckId;
    use std::collections::BTreeSet;

    /// The names are stable: scripts and `ignore` use them.
    #[test]
    fn every_check_is_explained_and_no_other() {
        let page = include_str!("../../docs/troubleshooting.md");
        let explained: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | ").map(|(name, _)| name))
            .collect();
        let explained: Vec<&str> = explained.into_iter().filter(|name| !name.starts_with("--")).collect();
        let known: Vec<&str> = CheckId::ALL.iter().map(|id| id.as_str()).collect();
        let as_set = |names: &[&'static str]| names.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(as_set(&explained), as_set(&known));
        assert_eq!(explained.len(), known.len(), "each once");
    }

    #[test]
    fn a_check_is_found_by_its_name() {
        for id in CheckId::ALL {
            assert_eq!(CheckId::named(id.as_str()), Some(*id));
            assert_eq!(serde_json::to_value(id).expect("JSON"), id.as_str());
        }
    }
}
