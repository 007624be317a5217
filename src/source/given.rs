//! A dump that somebody else made and that lies in a folder: read as it is. Knows files; must not
//! know what is in them.

use std::fs::{self, File};
use std::path::PathBuf;

use futures::FutureExt;

use super::{Exit, Flow, Part};
use crate::fault::{Context, Fault};
use crate::model::ArtifactFormat;

/// The file as a stream. It ended well when the file is still the one that was opened: an old script
/// may be writing it.
pub fn part(path: PathBuf, stem: &str, format: ArtifactFormat) -> Part {
    Part::new(stem, format, move || {
        async move {
            let doing = format!("read {}", path.display());
            let file = File::open(&path).context(doing.clone())?;
            let before = file.metadata().context(doing.clone())?;
            let exit = Exit::new(async move {
                let after = fs::metadata(&path).context(doing.clone())?;
                let same = before.len() == after.len()
                    && before.modified().context(doing.clone())?
                        == after.modified().context(doing)?;
                if same {
                    return Ok(Vec::new());
                }
                Err(Fault::transient(format!("{} changed while it was read", path.display()))
                    .hint("try again when whoever writes it is done"))
            });
            Ok(Flow { reader: Box::new(file), exit })
        }
        .boxed()
    })
}
