//! Plain tables.

/// Columns two spaces apart, each as wide as its widest cell; no trailing spaces. The first row is the heading.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width_of = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width_of(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A row of a table.
pub fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::{row, table};

    #[test]
    fn columns_line_up_and_lines_end_with_their_last_word() {
        let text = table(&[
            row(["NAME", "N", "NOTE"]),
            row(["é", "12", ""]),
            row(["longer", "3", "x"]),
        ]);
        assert_eq!(text, "NAME    N   NOTE\né       12\nlonger  3   x\n");
    }
}
