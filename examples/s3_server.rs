//! A small S3 server over a folder, for the benchmark and for trying things by hand:
//! `s3_server ROOT [ADDRESS:]PORT [ACCESS SECRET]`. Each folder in ROOT is a bucket; port 0 picks a
//! free one. Without a key pair anybody may read and write, so it then listens on loopback only.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, bail};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (root, place, keys) = match args.as_slice() {
        [root, place] => (root, place, None),
        [root, place, access, secret] => (root, place, Some((access, secret))),
        _ => bail!("usage: s3_server ROOT [ADDRESS:]PORT [ACCESS SECRET]"),
    };
    let address = match place.parse() {
        Ok(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        Err(_) => {
            place.parse().with_context(|| format!("{place:?} is neither a port nor an address"))?
        }
    };
    if keys.is_none() && !address.ip().is_loopback() {
        bail!("without a key pair it listens on loopback only");
    }
    std::fs::create_dir_all(root).with_context(|| format!("cannot create {root}"))?;

    let files = FileSystem::new(root).map_err(|e| anyhow::anyhow!("cannot serve {root}: {e:?}"))?;
    let mut service = S3ServiceBuilder::new(files);
    if let Some((access, secret)) = keys {
        service.set_auth(SimpleAuth::from_single(access.as_str(), secret.as_str()));
    }
    let service = service.build();

    let listener = TcpListener::bind(address).await.context("cannot listen")?;
    // Whoever started this reads the port from a pipe, so the line must not stay in a buffer.
    let mut out = std::io::stdout();
    writeln!(out, "listening on {}", listener.local_addr()?)?;
    out.flush()?;

    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => accepted.context("cannot accept")?.0,
            _ = tokio::signal::ctrl_c() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        };
        socket.set_nodelay(true)?;
        let service = service.clone();
        tokio::spawn(async move {
            let server = Builder::new(TokioExecutor::new());
            // A client that hangs up is its own business.
            server.serve_connection(TokioIo::new(socket), service).await.ok();
        });
    }
}
