//! Artifacts taken away, as they are stored: encrypted ones stay so.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{self, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use serde::Deserialize;
use tokio::sync::mpsc;
use utoipa::IntoParams;

use super::super::Hall;
use super::super::access::Admin;
use super::super::ask::{Asked, Named, find_later, there};
use super::super::problem::Problem;
use crate::app::App;
use crate::fault::{Fault, Result};
use crate::job::{Choice, Found, find, stored_stream};
use crate::model::{Action, Actor, Artifact, BackupId, Deed, JobName};

/// Pieces that wait for who reads.
const PIECES: usize = 4;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct From {
    /// From this destination; none: the first that has it.
    destination: Option<String>,
}

/// An artifact's stored bytes, all volumes joined; the manifest has their digest.
#[utoipa::path(get, path = "/api/v1/backups/{job}/{id}/artifacts/{name}", tag = "backups",
    params(("job" = String, Path, description = "the job's name"),
        ("id" = String, Path, description = "the backup's id"),
        ("name" = String, Path, description = "as the manifest names it"), From),
    security(("token" = ["admin"])),
    responses((status = 200, content_type = "application/octet-stream", body = [u8])))]
pub async fn artifact(
    State(hall): State<Hall>,
    Admin(caller): Admin,
    Named((job, id, name)): Named<(JobName, BackupId, String)>,
    Asked(from): Asked<From>,
) -> Result<Response, Problem> {
    let app = hall.live.app();
    let job = there(app.job(job.as_str()))?.clone();
    let places = match &from.destination {
        Some(name) => vec![there(job.place(name))?.destination.clone()],
        None => job.places.iter().map(|place| place.destination.clone()).collect(),
    };
    let found = find(&places, &job.name, Choice::Id(id), &app.site.trusted);
    let found = find_later(found).await?;
    let artifact = found.manifest.artifacts.iter().find(|artifact| artifact.name == name);
    let Some(artifact) = artifact.cloned() else {
        return Err(Problem::not_found(format!("backup {id} has no such artifact")));
    };
    let (pieces, mut taken) = mpsc::channel::<Result<Bytes>>(PIECES);
    let bytes = artifact.stored_bytes;
    tokio::spawn(carry(app, caller.actor(), found, artifact, pieces));
    // The intent is written before the first byte goes out: it comes with the first piece.
    let Some(first) = taken.recv().await else {
        return Err(Fault::permanent("the artifact can't be read").into());
    };
    let first = first?;
    let rest = stream::unfold(taken, async |mut taken| Some((taken.recv().await?, taken)));
    let body = Body::from_stream(stream::iter([Ok(first)]).chain(rest));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONTENT_LENGTH, bytes.into());
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{}\"", plain(&name)))
    {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// What can stand in a header between quotes.
fn plain(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    name.chars().map(plain).collect()
}

async fn carry(
    app: Arc<App>,
    actor: Actor,
    found: Found,
    artifact: Artifact,
    pieces: mpsc::Sender<Result<Bytes>>,
) {
    let deed = Deed::of(Action::Download, &found.manifest.job)
        .to(format!("{} {}", found.manifest.id, artifact.name))
        .saying(found.destination.name());
    let work = async {
        // Retention leaves it alone meanwhile.
        let _lease = found.lease(&app.site.data_dir)?;
        let mut stream = stored_stream(&found, &artifact)?;
        let mut empty = true;
        while let Some(piece) = stream.next().await {
            empty = false;
            let sent = pieces.send(Ok(piece?)).await;
            sent.map_err(|_| Fault::cancelled("the client hung up"))?;
        }
        if empty {
            pieces.send(Ok(Bytes::new())).await.ok();
        }
        Ok(())
    };
    if let Err(fault) = app.site.audited(&actor, deed, work).await {
        tracing::warn!("a download ended early: {}", fault.chain());
        pieces.send(Err(fault)).await.ok();
    }
}
