//! Tables for people: columns as wide as what is in them, no line longer than a terminal's hundred columns.

const WIDTH: usize = 100;
const GAP: &str = "  ";

/// The lines of a table. If it is too wide, the widest columns are cut, and cut cells end in an ellipsis.
pub fn lines(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = header.iter().map(|title| title.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > WIDTH {
        let Some(widest) = widths.iter_mut().max() else { break };
        *widest -= 1;
    }
    let title: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    std::iter::once(&title).chain(rows).map(|row| line(row, &widths)).collect()
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{:width$}", cut(cell, *width))).collect();
    cells.join(GAP).trim_end().to_owned()
}

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    cell.chars().take(width.saturating_sub(1)).chain(std::iter::once('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_never_too_wide() {
        let rows = [vec!["1".to_owned(), "x".repeat(120), "end".to_owned()], vec!["22".to_owned(), "y".to_owned(), String::new()]];
        let lines = lines(&["ID", "NAME", "LAST"], &rows);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:?}");
        assert!(lines[0].starts_with("ID  NAME") && lines[1].starts_with("1   xxx") && lines[1].ends_with("…  end"), "{lines:?}");
        assert_eq!(lines[2], "22  y");
    }
}
