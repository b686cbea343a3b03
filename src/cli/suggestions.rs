//! Filters what is proposed for an unknown word: never a command or an option that does more than was asked for.
//!
//! clap proposes any similar word, so that `queue delete` once led to `release`, which starts deliveries. For commands that
//! only show something, similarity is enough; a command that changes something must differ by a single typing error.

use clap::error::{ContextKind, ContextValue};

/// Commands that change nothing.
const HARMLESS: [&str; 11] =
    ["check", "dkim", "help", "list", "queue", "record", "show", "user", "verify", "--help", "--version"];

/// Options that narrow the selection, or choose the output format.
const NARROWING: [&str; 11] = [
    "--config",
    "--content",
    "--history",
    "--json",
    "--limit",
    "--message-id",
    "--older-than",
    "--recipient",
    "--state",
    "--strict",
    "--upstream",
];

/// Removes proposals that would be dangerous to follow blindly.
pub(super) fn without_unsafe_proposals(mut error: clap::Error) -> clap::Error {
    for (typed, proposed) in [
        (ContextKind::InvalidSubcommand, ContextKind::SuggestedSubcommand),
        (ContextKind::InvalidArg, ContextKind::SuggestedArg),
    ] {
        let Some(ContextValue::String(word)) = error.get(typed).cloned() else { continue };
        let kept: Vec<String> = match error.get(proposed) {
            Some(ContextValue::String(one)) => vec![one.clone()],
            Some(ContextValue::Strings(several)) => several.clone(),
            _ => continue,
        };
        let kept: Vec<String> = kept.into_iter().filter(|proposal| is_meant(&word, proposal)).collect();
        error.remove(proposed);
        match (proposed, kept.as_slice()) {
            (_, []) => {}
            (ContextKind::SuggestedArg, [first, ..]) => {
                error.insert(proposed, ContextValue::String(first.clone()));
            }
            _ => {
                error.insert(proposed, ContextValue::Strings(kept));
            }
        }
    }
    error
}

fn is_meant(word: &str, proposal: &str) -> bool {
    let name = proposal.split([' ', '=']).next().unwrap_or(proposal);
    HARMLESS.contains(&name) || NARROWING.contains(&name) || strsim::osa_distance(word, name) <= 1
}

#[cfg(test)]
mod tests {
    use super::super::Arguments;
    use super::*;
    use clap::{CommandFactory as _, Parser as _};

    fn complaint(words: &[&str]) -> String {
        let error = Arguments::try_parse_from([&["waxseal"], words].concat()).expect_err("not a command");
        without_unsafe_proposals(error).to_string()
    }

    /// Words that people know from other programs, and what clap would propose.
    #[test]
    fn no_word_leads_to_a_command_that_does_something_else() {
        for word in [
            "unhold",
            "releas-all",
            "resend",
            "requeue",
            "erase",
            "drop",
            "deliver",
            "free",
            "move",
            "reload",
            "unholde",
            "holding",
            "salve",
            "rehold",
            "retire",
            "rerelease",
        ] {
            let said = complaint(&["queue", word]);
            for changing in ["release", "retry", "remove", "hold", "salvage", "flush", "delete"] {
                assert!(!said.contains(&format!("'{changing}'")), "{word}: {said}");
            }
        }
        for (word, meant) in
            [("relase", "release"), ("remvoe", "remove"), ("holds", "hold"), ("lst", "list"), ("shw", "show")]
        {
            let said = complaint(&["queue", word]);
            assert!(said.contains(&format!("'{meant}'")), "{word}: {said}");
        }
    }

    #[test]
    fn no_option_leads_to_one_that_takes_in_more() {
        for words in [
            &["queue", "remove", "--small"][..],
            &["queue", "remove", "--ball"],
            &["queue", "retry", "--fall"],
            &["queue", "hold", "--alias"],
            &["queue", "remove", "--yess-please"],
        ] {
            let said = complaint(words);
            let is_slip = words[2] == "--ball" || words[2] == "--fall";
            assert_eq!(said.contains("'--all'") || said.contains("'--yes'"), is_slip, "{words:?}: {said}");
        }
        assert!(complaint(&["queue", "list", "--recipients"]).contains("'--recipient"), "a filter may be proposed");
    }

    /// A new command is either listed as changing nothing, or proposed only for a typing error.
    #[test]
    fn what_is_called_harmless_is_there() {
        let command = Arguments::command();
        let mut names = vec!["help".to_owned(), "--help".to_owned(), "--version".to_owned()];
        let mut open = vec![&command];
        while let Some(next) = open.pop() {
            names.extend(next.get_subcommands().map(|command| command.get_name().to_owned()));
            names.extend(next.get_arguments().filter_map(|arg| arg.get_long().map(|long| format!("--{long}"))));
            open.extend(next.get_subcommands());
        }
        for name in HARMLESS.iter().chain(&NARROWING) {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
    }
}
