//! A line to a server on which answers can be held back until enough was asked: what waits for an answer
//! before it asks on gets none.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::serve::Background;

pub struct Distance {
    pub port: u16,
    /// Bytes that went to the server.
    sent: Arc<watch::Sender<u64>>,
    /// No answer passes before so many were sent.
    wanted: Arc<watch::Sender<u64>>,
    _background: Background,
}

impl Distance {
    pub fn to(port: u16) -> Self {
        let (sent, wanted) = (Arc::new(watch::Sender::new(0)), Arc::new(watch::Sender::new(0)));
        let counters = (sent.clone(), wanted.clone());
        let background = Background::serve(move |listener| accept(listener, port, counters));
        Self { port: background.address.port(), sent, wanted, _background: background }
    }

    /// From now on nothing comes back until `bytes` more were sent.
    pub fn hold_until(&self, bytes: u64) {
        self.wanted.send_replace(*self.sent.borrow() + bytes);
    }
}

type Counters = (Arc<watch::Sender<u64>>, Arc<watch::Sender<u64>>);

async fn accept(listener: TcpListener, port: u16, (sent, wanted): Counters) {
    while let Ok((client, _)) = listener.accept().await {
        let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let counting = sent.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                counting.send_modify(|sent| *sent += count as u64);
                if to_server.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
            }
        });
        let (mut sent, wanted) = (sent.subscribe(), wanted.subscribe());
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                let enough = sent.wait_for(|sent| *sent >= *wanted.borrow()).await.is_ok();
                if !enough || to_client.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
            }
        });
    }
}
