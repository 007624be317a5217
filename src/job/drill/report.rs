//! The report of a drill, for a machine and for a person: a JSON file and a page that needs nothing
//! else. Everything in it is somebody else's text, and is escaped.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::super::Site;
use super::Drilled;
use crate::alert::escape;
use crate::durable::{self, Existing};
use crate::fault::{Context, Result};
use crate::model::{BackupId, JobName, RunId};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d8dee4}\
td.n{text-align:right;font-variant-numeric:tabular-nums}code{font-size:.85em}.ok{color:#1a7f37}.bad{color:#b42318}\
.verdict{font-size:1.4rem;font-weight:600}";

/// Writes both, and returns the page's path.
pub(super) fn write(site: &Site, drilled: &mut Drilled) -> Result<PathBuf> {
    let doing = "write the report";
    let folder = site.data_dir.join("drills").join(&drilled.job);
    durable::create_folder(&folder).context(doing)?;
    let backup = drilled.id.map_or("none".to_owned(), |id| id.to_string());
    let name = format!("{backup}_{}-{}", BackupId::at(drilled.at), drilled.run);
    let page = folder.join(format!("{name}.html"));
    drilled.report = Some(page.display().to_string());
    let json = serde_json::to_vec_pretty(drilled).context(doing)?;
    let beside = folder.join(format!("{name}.json"));
    durable::write(&beside, &json, Existing::Replace).context(doing)?;
    durable::write(&page, html(drilled).as_bytes(), Existing::Replace).context(doing)?;
    Ok(page)
}

/// The pages that are there of a job's drills, by run.
pub fn reports(site: &Site, job: &JobName) -> BTreeMap<RunId, PathBuf> {
    let folder = site.data_dir.join("drills").join(job.as_str());
    // Without any drill there is no folder.
    let files = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let page = |file: fs::DirEntry| {
        let name = file.file_name();
        let (_, run) = name.to_str()?.strip_suffix(".html")?.rsplit_once('-')?;
        Some((run.parse().ok()?, file.path()))
    };
    files.filter_map(page).collect()
}

fn html(drilled: &Drilled) -> String {
    let backup = drilled.id.map_or("no backup".to_owned(), |id| id.to_string());
    let (class, verdict) = match (drilled.proven, &drilled.unprovable) {
        (true, _) => ("ok", "Proven"),
        (_, Some(_)) => ("bad", "Not provable here"),
        _ => ("bad", "Not proven"),
    };
    let mut facts = vec![
        ("Backup", backup.clone()),
        ("From", drilled.destination.clone()),
        ("Held", drilled.at.to_string()),
        ("Loaded in", format!("{:.1} s", drilled.seconds)),
        ("Tables", drilled.tables.len().to_string()),
        ("Rows", drilled.rows().to_string()),
    ];
    let minutes = |seconds: i64| format!("{} min", seconds / 60);
    facts.extend(drilled.age_seconds.map(|age| ("Age", minutes(age))));
    facts.extend(drilled.max_age_seconds.map(|most| ("Allowed age", minutes(most))));
    let facts = facts
        .into_iter()
        .map(|(label, value)| format!("<tr><th>{label}</th><td>{}</td></tr>\n", escape(&value)));
    let mut body = format!(
        "<h1>Drill of {}</h1>\n<p class=\"verdict {class}\">{verdict}</p>\n<table>\n{}</table>\n",
        escape(&drilled.job),
        facts.collect::<String>()
    );
    let unprovable: Vec<String> = drilled.unprovable.iter().cloned().collect();
    for (title, lines) in [
        ("What is missing here", &unprovable),
        ("What is wrong", &drilled.failures),
        ("Notes", &drilled.notes),
    ] {
        if !lines.is_empty() {
            let items = lines.iter().map(|line| format!("<li>{}</li>\n", escape(line)));
            body += &format!("<h2>{title}</h2>\n<ul>\n{}</ul>\n", items.collect::<String>());
        }
    }
    if let Some(hint) = &drilled.hint {
        body += &format!("<p><strong>Next step:</strong> {}</p>\n", escape(hint));
    }
    body += &checks(drilled);
    body += &tables(drilled);
    let title = escape(&format!("{} {backup}: {verdict}", drilled.job));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    )
}

fn checks(drilled: &Drilled) -> String {
    if drilled.checks.is_empty() {
        return String::new();
    }
    let rows = drilled.checks.iter().map(|check| {
        let said = check.said.as_deref().unwrap_or_default();
        let (mark, check, said) = (mark(check.ok), escape(&check.check), escape(said));
        format!("<tr><td>{mark}</td><td><code>{check}</code></td><td>{said}</td></tr>\n")
    });
    format!("<h2>Checks</h2>\n<table>\n{}</table>\n", rows.collect::<String>())
}

fn tables(drilled: &Drilled) -> String {
    if drilled.tables.is_empty() {
        return String::new();
    }
    let rows = drilled.tables.iter().map(|result| {
        let table = &result.table;
        let name = escape(&format!("{}.{}", table.name.schema, table.name.table));
        let found = table.found.as_ref();
        let rows = found.map_or("missing".to_owned(), |held| held.rows.to_string());
        let hash = match (&table.expected.hash, found.and_then(|held| held.hash.as_ref())) {
            (None, _) => "",
            (Some(was), Some(is)) if was == is => "same",
            _ => "differs",
        };
        let (mark, source, was) = (mark(table.ok), escape(&result.source), table.expected.rows);
        format!(
            "<tr><td>{mark}</td><td>{source}</td><td>{name}</td><td class=\"n\">{was}</td>\
             <td class=\"n\">{rows}</td><td>{hash}</td></tr>\n"
        )
    });
    let head = ["", "Source", "Table", "Rows then", "Rows loaded", "Content"];
    let head: String = head.iter().map(|title| format!("<th>{title}</th>")).collect();
    let rows: String = rows.collect();
    format!("<h2>Tables</h2>\n<table>\n<tr>{head}</tr>\n{rows}</table>\n")
}

fn mark(ok: bool) -> &'static str {
    if ok { "<span class=\"ok\">ok</span>" } else { "<span class=\"bad\">wrong</span>" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_text_and_no_markup() {
        let hostile = "<script>alert(1)</script>".to_owned();
        let drilled = Drilled {
            job: "db".into(),
            destination: hostile.clone(),
            failures: vec![hostile.clone()],
            notes: vec![hostile.clone()],
            unprovable: Some(hostile),
            ..Drilled::default()
        };
        let page = html(&drilled);
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script"), "{page}");
    }
}
