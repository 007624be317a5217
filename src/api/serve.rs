//! Connections: how many at once, and how long a silent one is waited for. Knows TCP; must not know
//! routes.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::access::Peer;
use super::{Hall, Live, router};

/// Connections at once; who comes later waits.
const CONNECTIONS: usize = 256;
/// How long the head of a request may take, also the next one on the same connection.
const HEAD: Duration = Duration::from_secs(15);
/// The longest head of a request.
const HEAD_BYTES: usize = 32 * 1024;
/// A process without a free file descriptor tries again after this time.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until `stop`, and then ends what goes on.
pub async fn serve(live: Arc<dyn Live>, listener: TcpListener, stop: CancellationToken) {
    let router = router(Hall::new(live, stop.clone()));
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let open = TaskTracker::new();
    let accept = async || {
        let seat = room.clone().acquire_owned().await.ok()?;
        match listener.accept().await {
            Ok((stream, peer)) => Some((seat, stream, peer.ip())),
            Err(error) => {
                tracing::warn!("a connection was not taken: {error}");
                tokio::time::sleep(PAUSE).await;
                None
            }
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = accept() => accepted,
            () = stop.cancelled() => break,
        };
        let Some((seat, stream, peer)) = accepted else { continue };
        let (router, stop) = (router.clone(), stop.clone());
        open.spawn(async move {
            talk(router, stream, peer, stop).await;
            drop(seat);
        });
    }
    open.close();
    open.wait().await;
}

async fn talk(router: Router, stream: TcpStream, peer: IpAddr, stop: CancellationToken) {
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.clone().call(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_header_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Whoever is at the other end hung up, or does not speak HTTP.
        tracing::debug!("a connection ended: {error}");
    }
}
