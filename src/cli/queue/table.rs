//! A table of untrusted text: every cell stays in its column and on its line, whatever it contains.

use crate::observe::log::Clean;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A column's heading, and its maximum width on the screen.
pub type Column = (&'static str, usize);

/// Not below this, however narrow the terminal is.
const NARROWEST: usize = 8;

/// Written in pages; columns only become wider from page to page.
#[derive(Debug)]
pub struct TextTable<const COLUMNS: usize> {
    columns: [Column; COLUMNS],
    /// Columns of the terminal.
    room: Option<usize>,
    widths: [usize; COLUMNS],
    has_heading: bool,
}

impl<const COLUMNS: usize> TextTable<COLUMNS> {
    /// For a terminal with this many columns: text that does not fit is cut. `None` is for a file or a pipe, where nothing is cut.
    pub fn fitting(columns: [Column; COLUMNS], room: Option<usize>) -> Self {
        let columns = if room.is_some() { columns } else { columns.map(|(heading, _)| (heading, usize::MAX)) };
        Self { room, ..Self::new(columns) }
    }

    pub fn new(columns: [Column; COLUMNS]) -> Self {
        Self { columns, room: None, widths: columns.map(|(heading, _)| heading.len()), has_heading: false }
    }

    /// The rows as lines, with the heading on the first page.
    pub fn page(&mut self, rows: &[[String; COLUMNS]]) -> String {
        let mut fitted = self.fitted(rows);
        for row in &fitted {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        if self.narrow() {
            fitted = self.fitted(rows);
        }
        let mut text = String::new();
        if !std::mem::replace(&mut self.has_heading, true) {
            text.push_str(&self.line(&self.columns.map(|(heading, _)| heading.to_owned())));
        }
        fitted.iter().for_each(|row| text.push_str(&self.line(row)));
        text
    }

    fn fitted(&self, rows: &[[String; COLUMNS]]) -> Vec<[String; COLUMNS]> {
        rows.iter().map(|row| std::array::from_fn(|at| fit(&row[at], self.columns[at].1))).collect()
    }

    /// Shrinks the widest columns until a line fits the terminal, except the first: a message ID is useless in part.
    fn narrow(&mut self) -> bool {
        let Some(room) = self.room else { return false };
        let mut is_cut = false;
        while self.widths.iter().sum::<usize>() + 2 * COLUMNS.saturating_sub(1) > room {
            let widest = (1..COLUMNS).filter(|&at| self.widths[at] > NARROWEST).max_by_key(|&at| self.widths[at]);
            let Some(widest) = widest else { break };
            self.widths[widest] -= 1;
            self.columns[widest].1 = self.widths[widest];
            is_cut = true;
        }
        is_cut
    }

    fn line(&self, row: &[String; COLUMNS]) -> String {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(self.widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + 2));
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

/// Cleaned, and cut if it is too wide.
pub fn fit(text: &str, most: usize) -> String {
    let text = Clean(text).to_string();
    if text.width() <= most && text.chars().count() <= most.saturating_mul(2) {
        return text;
    }
    let mut cut = String::new();
    let mut width = 0;
    // Zero-width characters are limited as well.
    for character in text.chars().take(most.saturating_mul(2)) {
        width += character.width().unwrap_or(0);
        if width >= most {
            break;
        }
        cut.push(character);
    }
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_its_line_and_in_its_column() {
        let mut table = TextTable::new([("FROM", 12), ("TO", 8), ("REASON", 20)]);
        let text = table.page(&[
            ["a@b".into(), "x".into(), "fine".into()],
            ["evil\r\nFAKE  row".into(), "\u{202e}moc".into(), "\x1b[2J550 no".into()],
            ["日本語メール".into(), "é".into(), "".into()],
            ["日本語メールです".into(), "a\u{301}".repeat(9), "x".repeat(30)],
        ]);
        assert_eq!(
            text,
            "FROM          TO        REASON\n\
             a@b           x         fine\n\
             evil??FAKE …  ?moc      ?[2J550 no\n\
             日本語メール  é\n\
             日本語メー…   a\u{301}a\u{301}a\u{301}a\u{301}a\u{301}a\u{301}a\u{301}…  xxxxxxxxxxxxxxxxxxx…\n"
        );
        assert_eq!(table.page(&[["c@d".into(), "y".into(), "z".into()]]), "c@d           y         z\n");
    }

    #[test]
    fn a_terminal_gets_lines_that_fit_and_a_pipe_gets_all() {
        let row = [&"i".repeat(16), "sender@example.com", "r@example.net", &"reason ".repeat(40)].map(str::to_owned);
        let columns = [("ID", 16), ("FROM", 36), ("TO", 40), ("REASON", 200)];
        for room in [40, 60, 80, 120, 200] {
            let mut table = TextTable::fitting(columns, Some(room));
            let text = table.page(std::slice::from_ref(&row)) + &table.page(std::slice::from_ref(&row));
            let widest = text.lines().map(UnicodeWidthStr::width).max().unwrap_or_default();
            assert!(widest <= room.max(16 + 3 * NARROWEST + 6), "{widest} of {room}: {text}");
            assert!(text.contains(&row[0]) && text.contains('…'), "{text}");
        }
        let text = TextTable::fitting(columns, None).page(std::slice::from_ref(&row));
        assert!(row.iter().all(|cell| text.contains(cell.trim())) && !text.contains('…'), "{text}");
    }

    #[test]
    fn marks_without_a_place_of_their_own_are_cut_too() {
        let bomb = format!("a{}", "\u{301}".repeat(100_000));
        assert!(fit(&bomb, 10).chars().count() <= 21);
        assert_eq!(fit("", 10), "");
        assert_eq!(fit("abc", usize::MAX), "abc");
    }

    proptest::proptest! {
        #[test]
        fn a_row_is_one_line(cells in proptest::array::uniform3(".{0,40}")) {
            let mut table = TextTable::new([("A", 10), ("B", 5), ("C", 20)]);
            let text = table.page(&[cells]);
            proptest::prop_assert_eq!(text.lines().count(), 2);
            proptest::prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
            proptest::prop_assert!(text.lines().all(|line| line.width() <= 10 + 5 + 20 + 4), "{}", text);
        }
    }
}
