//! What the user most likely meant, and lists of choices, for remedies. Knows nothing of the configuration.

use crate::text::any_of;

/// The known word that `typed` was most likely meant to be.
pub fn nearest<'k>(typed: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let typed = typed.to_ascii_lowercase().replace('-', "_");
    known
        .map(|word| (strsim::damerau_levenshtein(&typed, &word.to_ascii_lowercase()), word))
        .filter(|&(distance, word)| distance <= (word.chars().count() / 3).max(1))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, word)| word)
}

/// `"a", "b" or "c"`.
pub fn one_of(choices: &[&str]) -> String {
    any_of(choices.iter().map(|choice| format!("\"{choice}\"")))
}
