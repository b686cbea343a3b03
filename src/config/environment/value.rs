//! What files of variables leave in a value: quotes, and a comment at the end. A shell takes them off; `docker run --env-file`,
//! systemd's older versions and Kubernetes do not.

/// The value without the quotes around it and the comment after it. Only for values that cannot hold either.
pub fn without_quotes(text: &str) -> &str {
    let text = text.trim();
    if let Some(quote) = text.chars().next().filter(|c| is_quote(*c)) {
        let inside = &text[1..];
        let closed = inside.split_once(quote).filter(|(_, rest)| rest.trim().is_empty() || is_comment(rest));
        if let Some((content, _)) = closed {
            return content.trim();
        }
    }
    match comment(text) {
        Some(at) => text[..at].trim_end(),
        None => text,
    }
}

/// What a secret's value holds that may have been meant for a shell, in words.
pub fn what_a_shell_would_take_off(text: &str) -> Option<&'static str> {
    let text = text.trim();
    let begins = text.chars().next().filter(|c| is_quote(*c));
    if begins.is_some() && text.len() > 1 && text.chars().next_back() == begins {
        return Some("the quotes are part of the value");
    }
    if begins.is_some_and(|quote| text[1..].split_once(quote).is_some_and(|(_, rest)| is_comment(rest))) {
        return Some("the quotes and the comment after them are part of the value");
    }
    comment(text).map(|_| "what looks like a comment is part of the value")
}

/// The name of the variable, if the whole value is a reference to one.
pub fn is_reference(text: &str) -> bool {
    let Some(name) = text.trim().strip_prefix('$') else { return false };
    let name = name.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(name);
    name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'')
}

/// White space, then a comment.
fn is_comment(text: &str) -> bool {
    text.starts_with([' ', '\t']) && text.trim_start().starts_with('#')
}

/// Where a comment begins: at the start, or after white space.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("# ") || text == "#" {
        return Some(0);
    }
    text.match_indices('#').map(|(at, _)| at).find(|&at| text[..at].ends_with([' ', '\t']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_comments_are_taken_off() {
        for (text, expected) in [
            ("587", "587"),
            ("\"587\"", "587"),
            ("'587'", "587"),
            (" '587' ", "587"),
            ("587 # submission", "587"),
            ("587\t# submission", "587"),
            ("\"587\" # submission", "587"),
            ("\"a # b\"", "a # b"),
            ("a#b", "a#b"),
            ("# only a comment", ""),
            ("\"\"", ""),
            ("\"", "\""),
            ("\"half", "\"half"),
            ("half\"", "half\""),
            ("\"a\",\"b\"", "\"a\",\"b\""),
            ("'ü' # ü", "ü"),
            ("", ""),
        ] {
            assert_eq!(without_quotes(text), expected, "{text}");
        }
    }

    #[test]
    fn of_a_secret_nothing_is_taken_off_but_it_is_named() {
        for (text, expected) in [
            ("\"hunter2\"", Some("the quotes are part of the value")),
            ("'hunter2'", Some("the quotes are part of the value")),
            ("'hunter2' # the relay's", Some("the quotes and the comment after them are part of the value")),
            ("hunter2 # the relay's", Some("what looks like a comment is part of the value")),
            ("hunter#2", None),
            ("#hunter2", None),
            ("hunter\"2", None),
            ("\"hunter2'", None),
            ("\"", None),
            ("", None),
        ] {
            assert_eq!(what_a_shell_would_take_off(text), expected, "{text}");
        }
    }

    #[test]
    fn a_reference_to_a_variable_is_the_whole_value() {
        for (text, expected) in [
            ("$RELAY_PWD", true),
            ("${RELAY_PWD}", true),
            ("$x", false),
            ("a$RELAY", false),
            ("$", false),
            ("$5", false),
        ] {
            assert_eq!(is_reference(text), expected, "{text}");
        }
    }
}
