//! A small S3 server over a folder, for the benchmark and for trying things by hand:
//! `s3_server ROOT [ADDRESS:]PORT [ACCESS SECRET]`. Each folder in ROOT is a bucket; port 0 picks a
//! free one. Without a key pair anybody may read and write, so it then listens on loopback only.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::dto::StreamingBlob;
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Request, S3Response, S3Result, dto};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::io::ReaderStream;

/// What is read of a file at once.
const READ_BYTES: usize = 256 << 10;

/// As `s3s_fs` has it, but for reading: that goes through two threads for every 4 KiB, and a benchmark on the
/// same cores would measure that.
struct Files {
    root: PathBuf,
    all: FileSystem,
}

macro_rules! as_it_is {
    ($($operation:ident: $input:ident -> $output:ident;)*) => {
        #[async_trait::async_trait]
        impl S3 for Files {
            $(async fn $operation(&self, asked: S3Request<dto::$input>) -> S3Result<S3Response<dto::$output>> {
                self.all.$operation(asked).await
            })*

            async fn get_object(
                &self,
                asked: S3Request<dto::GetObjectInput>,
            ) -> S3Result<S3Response<dto::GetObjectOutput>> {
                let key = Path::new(&asked.input.key);
                let path = self.root.join(&asked.input.bucket).join(key);
                // Of any other key only `s3s_fs` knows where it leads.
                let is_plain = key.components().all(|part| matches!(part, Component::Normal(_)));
                let is_whole = asked.input.range.is_none() && is_plain;
                let mut got = self.all.get_object(asked).await?;
                if is_whole {
                    let file = tokio::fs::File::open(path).await.map_err(s3s::S3Error::internal_error)?;
                    let body = ReaderStream::with_capacity(file, READ_BYTES);
                    got.output.body = Some(StreamingBlob::wrap(body));
                }
                Ok(got)
            }
        }
    };
}

as_it_is! {
    abort_multipart_upload: AbortMultipartUploadInput -> AbortMultipartUploadOutput;
    complete_multipart_upload: CompleteMultipartUploadInput -> CompleteMultipartUploadOutput;
    create_bucket: CreateBucketInput -> CreateBucketOutput;
    create_multipart_upload: CreateMultipartUploadInput -> CreateMultipartUploadOutput;
    delete_object: DeleteObjectInput -> DeleteObjectOutput;
    delete_objects: DeleteObjectsInput -> DeleteObjectsOutput;
    get_bucket_location: GetBucketLocationInput -> GetBucketLocationOutput;
    head_bucket: HeadBucketInput -> HeadBucketOutput;
    head_object: HeadObjectInput -> HeadObjectOutput;
    list_buckets: ListBucketsInput -> ListBucketsOutput;
    list_objects: ListObjectsInput -> ListObjectsOutput;
    list_objects_v2: ListObjectsV2Input -> ListObjectsV2Output;
    list_parts: ListPartsInput -> ListPartsOutput;
    put_object: PutObjectInput -> PutObjectOutput;
    upload_part: UploadPartInput -> UploadPartOutput;
}

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

    let all = FileSystem::new(root).map_err(|e| anyhow::anyhow!("cannot serve {root}: {e:?}"))?;
    let mut service = S3ServiceBuilder::new(Files { root: PathBuf::from(root), all });
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
