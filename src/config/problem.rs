//! What is wrong with a configuration: each problem with its place and a remedy, all of them at once.
//!
//! Printed plainly (`file:line:column: message`) or with the source line marked. Never shows a secret: messages and
//! lines are filtered by what `masking` found in the configuration.

use super::masking::Survey;
use super::schema::Schema;
use crate::observe::log::Clean;
use miette::{Diagnostic, GraphicalReportHandler, LabeledSpan, NamedSource, SourceCode};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Where something was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A range of octets in the configuration file.
    File(Range<usize>),
    /// A variable, or a file of the secrets folder.
    Environment(String),
    /// Something that is missing altogether.
    Nowhere,
}

/// Errors refuse the configuration, warnings do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemSeverity {
    Error,
    Warning,
}

impl fmt::Display for ProblemSeverity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub severity: ProblemSeverity,
    pub place: Place,
    pub message: String,
    pub help: Option<String>,
}

impl Problem {
    pub fn new(place: Place, message: impl Into<String>) -> Self {
        Self { severity: ProblemSeverity::Error, place, message: message.into(), help: None }
    }

    pub fn help(&mut self, help: impl Into<String>) {
        self.help = Some(help.into());
    }
}

/// Problems found while resolving.
#[derive(Debug, Default)]
pub struct Findings {
    pub errors: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

impl Findings {
    pub fn error(&mut self, place: &Place, message: impl Into<String>) -> &mut Problem {
        self.errors.push_mut(Problem::new(place.clone(), message))
    }

    pub fn warning(&mut self, place: &Place, message: impl Into<String>) -> &mut Problem {
        let warning = Problem { severity: ProblemSeverity::Warning, ..Problem::new(place.clone(), message) };
        self.warnings.push_mut(warning)
    }
}

/// A configuration's text, the name under which its lines are reported, and which parts may be shown.
#[derive(Default)]
pub struct Source {
    name: String,
    text: String,
    pub survey: Survey,
}

impl Source {
    pub fn new(name: impl Into<String>, text: impl Into<String>, schema: Schema) -> Self {
        Self { name: name.into(), text: text.into(), survey: Survey::blind(schema) }
    }

    /// For a place without text.
    pub fn named(name: impl Into<String>) -> Self {
        Self::new(name, "", Schema::default())
    }

    /// Line and column of an octet, both from 1, the column in characters.
    fn position(&self, octet: usize) -> (usize, usize) {
        let before = self.text.get(..octet).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// Prints no text, because it contains secrets.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Problems of one configuration. `{}` prints one line each, `{:#}` marks the source lines, for a terminal.
#[derive(Debug, Clone)]
pub struct Problems {
    source: Arc<Source>,
    problems: Vec<Problem>,
    /// Found beside errors.
    warnings: Vec<Problem>,
}

impl Problems {
    /// Sorted by place: the file's from top to bottom, then the environment's. Duplicates (one value may concern
    /// several listeners) are removed.
    pub fn new(source: Arc<Source>, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| match &problem.place {
            Place::File(at) => (0, at.start),
            Place::Environment(_) => (1, 0),
            Place::Nowhere => (2, 0),
        });
        problems.dedup();
        let hide = |text: &mut String| *text = source.survey.hidden.hide(text);
        for Problem { place, message, help, .. } in &mut problems {
            hide(message);
            help.as_mut().map(hide);
            if let Place::Environment(name) = place {
                hide(name);
            }
        }
        Self { source, problems, warnings: Vec::new() }
    }

    /// What else was found.
    pub fn with_warnings(self, warnings: Vec<Problem>) -> Self {
        Self { warnings: Self::new(self.source.clone(), warnings).problems, ..self }
    }

    pub fn len(&self) -> usize {
        self.problems.len()
    }

    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Another text about the same configuration, filtered like a problem.
    pub fn hide(&self, text: &str) -> String {
        self.source.survey.hidden.hide(text)
    }

    pub fn iter(&self) -> impl Iterator<Item = Located<'_>> {
        self.problems.iter().map(|problem| Located { problem, source: &self.source })
    }

    /// Those that were found beside the errors.
    pub fn warnings(&self) -> impl Iterator<Item = Located<'_>> {
        self.warnings.iter().map(|problem| Located { problem, source: &self.source })
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.iter().enumerate() {
            match (at, f.alternate()) {
                (0, false) => write!(f, "{problem}")?,
                (_, false) => write!(f, "\n{problem}")?,
                (_, true) => write!(f, "{problem:#}")?,
            }
        }
        Ok(())
    }
}

/// One problem together with the text that it concerns. `{}` is one line, `{:#}` shows the source.
#[derive(Debug, Clone, Copy)]
pub struct Located<'a> {
    problem: &'a Problem,
    source: &'a Source,
}

impl Located<'_> {
    pub fn severity(&self) -> ProblemSeverity {
        self.problem.severity
    }

    pub fn message(&self) -> &str {
        &self.problem.message
    }

    pub fn help(&self) -> Option<&str> {
        self.problem.help.as_deref()
    }

    /// `config.toml:3:7`, or the name of a variable.
    pub fn place(&self) -> String {
        match &self.problem.place {
            Place::File(at) => {
                let (line, column) = self.source.position(at.start);
                format!("{}:{line}:{column}", self.source.name)
            }
            Place::Environment(name) => name.clone(),
            Place::Nowhere => self.source.name.clone(),
        }
    }

    /// Line and column, if the place is in the file.
    pub fn position(&self) -> Option<(usize, usize)> {
        match &self.problem.place {
            Place::File(at) => Some(self.source.position(at.start)),
            Place::Environment(_) | Place::Nowhere => None,
        }
    }
}

impl fmt::Display for Located<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return GraphicalReportHandler::new().render_report(f, &Marked::new(*self));
        }
        // A message quotes what was typed, which may contain anything.
        write!(f, "{}: {}", self.place(), Clean(self.message()))?;
        self.help().map_or(Ok(()), |help| write!(f, " (help: {})", Clean(help)))
    }
}

/// A problem in the form that miette needs.
#[derive(Debug)]
struct Marked<'a> {
    located: Located<'a>,
    source: Option<NamedSource<String>>,
}

impl<'a> Marked<'a> {
    fn new(located: Located<'a>) -> Self {
        let source = match &located.problem.place {
            Place::File(at) => {
                Some(NamedSource::new(&located.source.name, located.source.survey.mask(&located.source.text, at)))
            }
            Place::Environment(_) | Place::Nowhere => None,
        };
        Self { located, source }
    }
}

impl fmt::Display for Marked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.located.severity())?;
        match &self.located.problem.place {
            Place::Environment(name) => write!(f, "{name}: {}", Clean(self.located.message())),
            Place::File(_) | Place::Nowhere => Clean(self.located.message()).fmt(f),
        }
    }
}

impl std::error::Error for Marked<'_> {}

impl Diagnostic for Marked<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.located.severity() {
            ProblemSeverity::Error => miette::Severity::Error,
            ProblemSeverity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.located.help().map(|help| Box::new(Clean(help)) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        match &self.located.problem.place {
            Place::File(at) => Some(Box::new(std::iter::once(LabeledSpan::underline(at.clone())))),
            Place::Environment(_) | Place::Nowhere => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# ü\n'ü' = 1\npassword = \"hunter2\"\nport = 99999\n";

    fn at(part: &str) -> Range<usize> {
        let start = TEXT.find(part).expect("a part of the text");
        start..start + part.len()
    }

    fn problems() -> Problems {
        let schema = crate::config::file::SCHEMA;
        let mut source = Source::new("config.toml", TEXT, schema);
        source.survey = Survey::of(toml::de::DeTable::parse(TEXT).expect("TOML").get_ref(), schema);
        let mut late = Problem::new(Place::File(at("99999")), "`port` is too large");
        late.help("use a number up to 65535");
        let early = Problem::new(Place::File(at("password")), "`password` is odd");
        Problems::new(Arc::new(source), vec![late, Problem::new(Place::Nowhere, "nothing to do"), early])
    }

    /// Text quoted in a message may contain anything.
    #[test]
    fn a_message_stays_on_its_line_and_harmless() {
        let mut problem =
            Problem::new(Place::Nowhere, "`hostname`: \"a\r\nb\u{1b}[31m\u{202e}\" is not a valid domain");
        problem.help("write \"a\nb\"");
        let problems = Problems::new(Arc::new(Source::named("config.toml")), vec![problem]);
        let shown = problems.to_string();
        assert_eq!(shown, "config.toml: `hostname`: \"a??b?[31m?\" is not a valid domain (help: write \"a?b\")");
        assert!(!format!("{problems:#}").contains(['\r', '\u{202e}']), "{problems:#}");
    }

    #[test]
    fn one_line_each_in_the_order_of_the_file() {
        assert_eq!(
            problems().to_string(),
            "config.toml:3:1: `password` is odd\n\
             config.toml:4:8: `port` is too large (help: use a number up to 65535)\n\
             config.toml: nothing to do"
        );
    }

    #[test]
    fn a_terminal_sees_the_source_line_but_no_secret() {
        let shown = format!("{:#}", problems());
        assert!(shown.contains("port = 99999") && shown.contains("help: use a number"), "{shown}");
        assert!(shown.contains("error: `port` is too large"), "{shown}");
        assert!(shown.contains("password = *********") && !shown.contains("hunter2"), "{shown}");
    }
}
