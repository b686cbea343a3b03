//! Writes rows as they are read, as lines of a table or objects of a JSON array, so that a long queue needs little
//! memory.

use super::table::{Column, TextTable};
use serde_json::Value;

#[derive(Debug)]
pub struct Listing<const COLUMNS: usize> {
    form: ListingFormat<COLUMNS>,
    written: u64,
}

#[derive(Debug)]
enum ListingFormat<const COLUMNS: usize> {
    Table(TextTable<COLUMNS>),
    /// The array's name in the JSON object.
    Json(&'static str),
}

impl<const COLUMNS: usize> Listing<COLUMNS> {
    /// `room`: the terminal's columns, if it is one.
    pub fn table(columns: [Column; COLUMNS], room: Option<usize>) -> Self {
        Self { form: ListingFormat::Table(TextTable::fitting(columns, room)), written: 0 }
    }

    pub fn is_table(&self) -> bool {
        matches!(self.form, ListingFormat::Table(_))
    }

    pub fn json(array: &'static str) -> Self {
        Self { form: ListingFormat::Json(array), written: 0 }
    }

    /// How many rows were written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// One row is one line in either form.
    pub fn page<T>(
        &mut self,
        rows: &[T],
        cells: impl Fn(&T) -> [String; COLUMNS],
        object: impl Fn(&T) -> Value,
    ) -> String {
        let text = match &mut self.form {
            _ if rows.is_empty() => String::new(),
            ListingFormat::Table(table) => table.page(&rows.iter().map(cells).collect::<Vec<_>>()),
            ListingFormat::Json(array) => {
                let mut text = String::new();
                for (at, row) in rows.iter().enumerate() {
                    let is_first = self.written == 0 && at == 0;
                    text.push_str(&if is_first { format!("{{\"{array}\": [\n  ") } else { ",\n  ".to_owned() });
                    text.push_str(&object(row).to_string());
                }
                text
            }
        };
        self.written += u64::try_from(rows.len()).unwrap_or(u64::MAX);
        text
    }

    /// Ends with the values beside the array, or the text below the table.
    pub fn end(self, beside: &[(&str, Value)], below: &str) -> String {
        match self.form {
            ListingFormat::Table(_) => below.to_owned(),
            ListingFormat::Json(array) => {
                let mut text = if self.written == 0 { format!("{{\"{array}\": [") } else { "\n".to_owned() };
                text.push(']');
                for (name, value) in beside {
                    text.push_str(&format!(",\n\"{name}\": {value}"));
                }
                text + "}\n"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: [Column; 2] = [("N", 3), ("TWICE", 5)];

    fn cells(number: &u32) -> [String; 2] {
        [number.to_string(), (number * 2).to_string()]
    }

    #[test]
    fn pages_make_one_table_or_one_object() {
        let write = |mut listing: Listing<2>, pages: &[&[u32]]| {
            let mut text = String::new();
            for page in pages {
                text.push_str(&listing.page(page, cells, |number| json!({ "n": number })));
            }
            assert_eq!(listing.written(), pages.iter().map(|page| page.len() as u64).sum::<u64>());
            text + &listing.end(&[("more", json!(false))], "end\n")
        };
        assert_eq!(
            write(Listing::table(COLUMNS, None), &[&[1, 20], &[], &[3]]),
            "N   TWICE\n1   2\n20  40\n3   6\nend\n"
        );
        for (pages, numbers) in [(&[&[1, 2][..], &[], &[3]][..], vec![1, 2, 3]), (&[&[][..]], vec![]), (&[], vec![])] {
            let text = write(Listing::json("numbers"), pages);
            let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            let objects: Vec<_> = numbers.iter().map(|number| json!({ "n": number })).collect();
            assert_eq!(value, json!({ "numbers": objects, "more": false }));
        }
        assert_eq!(write(Listing::table(COLUMNS, None), &[]), "end\n");
    }
}
