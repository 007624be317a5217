//! The reference, written from the program itself: from clap, the config's schema, the metrics and the
//! OpenAPI document. `make reference` puts it into docs/reference; `promises::reference` compares.

pub mod api;
pub mod cli;
pub mod config;
mod metrics;

/// Every file of docs/reference, with what it should hold.
pub fn files() -> [(&'static str, String); 4] {
    [
        ("config.md", config::page(&respaldo::config::schema())),
        ("cli.md", cli::page(respaldo::cli::command())),
        ("metrics.md", metrics::page()),
        ("api.md", api::page(&respaldo::api::document())),
    ]
}

/// What every page begins with.
fn head(title: &str, about: &str) -> String {
    format!(
        "# {title}\n\n<!-- Written by `make reference` from the code: change it there. -->\n\n{about}\n"
    )
}

/// A table, or nothing where there are no rows.
fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | ")).replace("|  |", "| |");
    let names: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    let mut text = format!("\n{}{}", line(&names), line(&vec!["---".to_owned(); columns.len()]));
    for row in rows {
        let cells: Vec<String> =
            row.iter().map(|cell| cell.replace('\n', " ").replace('|', "\\|")).collect();
        text += &line(&cells);
    }
    text
}

/// As code, where there is something.
fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}
