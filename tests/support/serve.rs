//! A server inside the test process, on a runtime of its own: so that a test may be synchronous, and
//! may block while the server answers.

use std::future::Future;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// Dropping it stops the server and cuts its connections.
pub struct Background {
    runtime: Option<Runtime>,
    pub address: SocketAddr,
}

impl Background {
    pub fn serve<F>(server: impl FnOnce(TcpListener) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move { server(TcpListener::from_std(listener).unwrap()).await });
        Self { runtime: Some(runtime), address }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Allowed inside an async test too, unlike dropping it.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
