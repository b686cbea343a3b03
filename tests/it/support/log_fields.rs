//! Compares log lines with docs/log.md: each field that a gateway logs in JSON is documented there, and has its documented
//! type in every line.

use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/log.md");

/// Fails unless every line in JSON has the documented fields with the documented types.
pub fn check_types(lines: &[String]) {
    if std::thread::panicking() {
        return;
    }
    for line in lines.iter().filter(|line| line.starts_with("{\"timestamp\"")) {
        // One that was cut off by SIGKILL.
        let Ok(Value::Object(event)) = serde_json::from_str(line) else { continue };
        let is_ours = !matches!(event["level"].as_str(), Some("DEBUG" | "TRACE"));
        for (name, value) in &event {
            let is_right = match documented(name) {
                Some("text") => value.is_string(),
                Some("number") => value.is_number(),
                _ => !is_ours || is_head(name),
            };
            assert!(is_right, "`{name}` is {value}, and docs/log.md says {:?}: {line}", documented(name));
        }
    }
}

fn is_head(name: &str) -> bool {
    ["timestamp", "level", "message"].contains(&name)
}

/// The type in the table of fields.
fn documented(name: &str) -> Option<&'static str> {
    let row = PAGE.lines().find_map(|line| line.strip_prefix(&format!("| `{name}` | ")))?;
    row.split(" | ").next().filter(|of| ["text", "number"].contains(of))
}

#[test]
fn a_number_that_is_text_in_one_line_is_found() {
    let line = |fields: &str| vec![format!("{{\"timestamp\":\"t\",\"level\":\"INFO\",\"message\":\"m\",{fields}}}")];
    let is_found = |fields: &str| std::panic::catch_unwind(|| check_types(&line(fields))).is_err();
    for (fields, wrong) in [
        ("\"ms\":5,\"to\":\"a@b\"", false),
        ("\"ms\":\"5\"", true),
        ("\"to\":5", true),
        ("\"unheard_of\":5", true),
        ("\"waiting\":0", false),
    ] {
        assert_eq!(is_found(fields), wrong, "{fields}");
    }
}
