//! pg_restore's list of an archive in a file, and a run for some of its entries. Knows the list's form; must
//! not know why an entry is chosen.

use std::fmt::Display;
use std::io::Write as _;
use std::path::Path;

use super::loading::{Loading, parallel};
use super::programs::run;
use crate::fault::{Context, Result};
use crate::source::child::{self, Program};

/// The lines of a list that are no comments.
pub(super) fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
}

/// An entry without its numbers: what it is, of which schema, and its name.
pub(super) fn entry(line: &str) -> &str {
    // Number; two more of the source's catalog; what it is.
    line.splitn(4, ' ').nth(3).unwrap_or_default()
}

impl Loading {
    /// What an archive has in a section.
    pub(super) async fn list(&self, section: &str, archive: &Path) -> Result<String> {
        let listing = self.of_section(section)?.arg("--list").arg(archive);
        child::whole_output(listing, self.session.cancel.clone()).await
    }

    /// Loads these lines of an archive's list, in their order, by `jobs` sessions; the number that each begins
    /// with does.
    pub(super) async fn load_entries(
        &self,
        program: Program,
        archive: &Path,
        lines: &[impl Display],
        jobs: usize,
    ) -> Result<Vec<String>> {
        if lines.is_empty() {
            return Ok(Vec::new());
        }
        let doing = "write down what is loaded";
        let mut chosen = tempfile::NamedTempFile::new_in(&self.session.spool).context(doing)?;
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        chosen.write_all(text.as_bytes()).context(doing)?;
        let program = program
            .arg("--exit-on-error")
            .arg(format!("--use-list={}", chosen.path().display()))
            .args(parallel(jobs.min(lines.len())));
        run(program.arg(archive), &self.session).await
    }

    pub(super) fn of_section(&self, section: &str) -> Result<Program> {
        Ok(self.pg_restore()?.arg(format!("--section={section}")))
    }
}
