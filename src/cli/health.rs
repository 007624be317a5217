//! `respaldo health`: asks the running daemon, for a container's HEALTHCHECK without curl. Done every
//! few seconds, so nothing is done that it can do without: no TLS, no catalog, and of the config only
//! the address.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::args::Health;
use super::{Exit, output};
use crate::config;
use crate::fault::{Context, Fault, Result};

const ANSWER: Duration = Duration::from_secs(8);
/// More is no answer of ours.
const MOST_BYTES: u64 = 16 << 20;

pub(super) fn health(file: Option<&Path>, wanted: &Health) -> Result<Exit> {
    let address = reachable(config::listen(file)?);
    let path = match &wanted.job {
        Some(job) => format!("/health/{job}"),
        None => "/health".to_owned(),
    };
    let silent = |error: io::Error| {
        Fault::transient(format!("the daemon does not answer on {address}"))
            .cause(error)
            .hint("is `respaldo run` running here, with the same config?")
    };
    let answer = ask(address, &path).map_err(silent)?;
    let (code, body) =
        parse(&answer).ok_or_else(|| silent(io::Error::other("something else has that port")))?;
    if let (404, Some(job)) = (code, &wanted.job) {
        return Err(Fault::usage(format!("there is no job '{job}'"))
            .hint("`respaldo status` shows the jobs"));
    }
    let body: Value = serde_json::from_str(body).context("read the daemon's answer")?;
    if wanted.json {
        output::json(&body)?;
    } else {
        let word = |value: &Value| value["status"].as_str().unwrap_or("unknown").to_owned();
        output::data(&format!("{}\n", word(&body)))?;
        for job in body["jobs"].as_array().into_iter().flatten() {
            output::data(&format!("{} {}\n", job["job"].as_str().unwrap_or("?"), word(job)))?;
        }
    }
    Ok(if code == 200 { Exit::Done } else { Exit::Failed })
}

/// One request. HTTP/1.0, so that the answer ends with the connection and comes in one piece.
fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(MOST_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

/// The status code and the body.
fn parse(answer: &str) -> Option<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some((code.parse().ok()?, body))
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
