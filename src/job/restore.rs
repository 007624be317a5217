//! A restore: planned first, loaded beside what is there, put in place only when every digest was
//! right. A failure at any step leaves what was there before.

use std::path::PathBuf;

use super::reading::read_artifact;
use super::{Found, Site};
use crate::fault::{Fault, Result};
use crate::pipeline::Meter;
use crate::signature::Verdict;
use crate::source::{Session, Source, Target, Wanted};

/// What the command line asks for.
#[derive(Debug, Clone, Default)]
pub struct RestoreRequest {
    pub database: Option<String>,
    pub path: Option<PathBuf>,
    pub no_owner: bool,
    /// Take a manifest that no known key signed.
    pub trust: bool,
}

/// A restore that was planned and not begun.
pub struct Restore {
    found: Found,
    target: Box<dyn Target>,
    session: Session,
    warnings: Vec<String>,
}

impl Restore {
    /// Looks at both ends and changes nothing.
    pub async fn plan(
        found: Found,
        source: &dyn Source,
        request: &RestoreRequest,
        session: &Session,
    ) -> Result<Self> {
        let warnings = check_signature(&found, request.trust)?;
        let wanted = Wanted {
            database: request.database.clone(),
            path: request.path.clone(),
            facts: Some(found.manifest.source.clone()),
            artifacts: found.manifest.artifacts.len(),
            tag: found.manifest.id.to_string().to_lowercase(),
            no_owner: request.no_owner,
        };
        let target = source.target(&wanted, session).await?;
        Ok(Self { found, target, session: session.clone(), warnings })
    }

    /// What will happen, line by line.
    pub fn lines(&self, site: &Site) -> Vec<String> {
        let manifest = &self.found.manifest;
        let age = site.clock.now().duration_since(manifest.id.started());
        let age = match age.as_hours() {
            ..2 => format!("{} min", age.as_mins()),
            hours @ 2..48 => format!("{hours} h"),
            hours => format!("{} days", hours / 24),
        };
        let signature = match &self.found.signature {
            Verdict::Trusted => "signature: good, by a known key",
            Verdict::UnknownKey(_) => "signature: good, but by a key that is not known here",
            Verdict::Missing => "signature: missing",
            Verdict::Broken => "signature: broken",
        };
        let mut lines = vec![
            format!("restore {} {} ({age} old)", manifest.job, manifest.id),
            format!("from '{}' {}", self.found.destination.name(), self.found.destination.place()),
            format!(
                "{} '{}', {} artifacts, {} stored, {} plain",
                manifest.source.engine.as_str(),
                manifest.source.name,
                manifest.artifacts.len(),
                super::backup::bytes(manifest.stored_bytes()),
                super::backup::bytes(manifest.plain_bytes()),
            ),
            signature.to_owned(),
        ];
        lines.extend(self.target.plan());
        lines.extend(self.warnings.iter().map(|warning| format!("warning: {warning}")));
        lines
    }

    /// What a person types to confirm.
    pub fn target_name(&self) -> String {
        self.target.name()
    }

    pub fn plain_bytes(&self) -> u64 {
        self.found.manifest.plain_bytes()
    }

    /// Carries it out, and says what was done.
    pub async fn run(mut self, site: &Site, meter: &Meter) -> Result<Vec<String>> {
        let _lease = self.found.lease(&site.data_dir)?;
        let loaded = self.load(meter).await;
        if loaded.is_err() {
            self.target.discard().await;
        }
        loaded
    }

    async fn load(&mut self, meter: &Meter) -> Result<Vec<String>> {
        self.target.begin().await?;
        for artifact in &self.found.manifest.artifacts {
            let intake = self.target.load(artifact).await?;
            let folder = self.found.folder();
            let clean =
                read_artifact(&self.found.destination, &folder, artifact, intake, meter).await?;
            for warning in clean.warnings() {
                tracing::warn!("{}: {warning}", artifact.name);
            }
            if self.session.cancel.is_cancelled() {
                return Err(Fault::cancelled("the restore was stopped"));
            }
        }
        self.target.finish().await
    }
}

fn check_signature(found: &Found, trust: bool) -> Result<Vec<String>> {
    let (what, hint) = match &found.signature {
        Verdict::Trusted => return Ok(Vec::new()),
        Verdict::UnknownKey(key) => (
            format!("the backup is signed by a key that is not known here ({key})"),
            "if you know where it comes from, add --trust, or the key to `trusted_keys` in the config",
        ),
        Verdict::Missing => {
            ("the backup is not signed".to_owned(), "if you know where it comes from, add --trust")
        }
        Verdict::Broken => (
            "the backup's manifest is not the one that was signed".to_owned(),
            "somebody or something changed it: use another destination or backup; --trust takes it all the same",
        ),
    };
    if trust { Ok(vec![what]) } else { Err(Fault::permanent(what).hint(hint)) }
}
