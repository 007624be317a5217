//! `respaldo health`: asks the running daemon, for a container's HEALTHCHECK without curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{Exit, load, output};
use crate::clock::Clock;
use crate::fault::{Context, Fault, Result};

const ANSWER: Duration = Duration::from_secs(8);

pub(super) async fn health(file: Option<&Path>, clock: Clock, json: bool) -> Result<Exit> {
    let listen = load(file, &clock)?.settings.server.listen;
    let address = reachable(listen);
    let silent = |error: reqwest::Error| {
        Fault::transient(format!("the daemon does not answer on {address}"))
            .cause(error.without_url())
            .hint("is `respaldo run` running here, with the same config?")
    };
    let client = reqwest::Client::builder().timeout(ANSWER).no_proxy().build();
    let client = client.context("make a client")?;
    let answer = client.get(format!("http://{address}/health")).send().await.map_err(silent)?;
    let well = answer.status().is_success();
    let text = answer.text().await.map_err(silent)?;
    let body: Value = serde_json::from_str(&text).context("read the daemon's answer")?;
    if json {
        output::json(&body)?;
    } else {
        let word = |value: &Value| value["status"].as_str().unwrap_or("unknown").to_owned();
        output::data(&format!("{}\n", word(&body)))?;
        for job in body["jobs"].as_array().into_iter().flatten() {
            output::data(&format!("{} {}\n", job["job"].as_str().unwrap_or("?"), word(job)))?;
        }
    }
    Ok(if well { Exit::Done } else { Exit::Failed })
}

/// An address to ask what listens everywhere.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
