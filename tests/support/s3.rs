//! An S3 server inside the test process (s3s-fs: multipart, conditional puts, signatures), with a
//! layer in front that fails on cue.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use futures::{StreamExt, TryStreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use s3s::auth::SimpleAuth;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::inbox::Inbox;
use super::serve::Background;
use super::{DEADLINE, http, temp_folder};

/// A running server with one bucket.
pub struct S3 {
    pub bucket: &'static str,
    pub access_key: &'static str,
    pub secret_key: &'static str,
    pub region: &'static str,
    pub faults: Faults,
    root: tempfile::TempDir,
    background: Background,
}

impl S3 {
    pub fn start() -> Self {
        Self::start_with(S3Config::default())
    }

    /// One that takes no offence at a client's clock, for tests that set it.
    pub fn timeless() -> Self {
        let mut config = S3Config::default();
        config.presigned_url_max_skew_time_secs = u32::MAX;
        Self::start_with(config)
    }

    fn start_with(config: S3Config) -> Self {
        let root = temp_folder("s3");
        let bucket = "backups";
        let (access_key, secret_key) = ("AKIATESTRESPALDO", "s3-secret-that-must-not-be-shown");
        std::fs::create_dir(root.path().join(bucket)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        builder.set_auth(SimpleAuth::from_single(access_key, secret_key));
        let (service, faults) = (builder.build(), Faults::default());
        let layer = faults.clone();
        let background = Background::serve(move |listener| accept(listener, service, layer));
        Self { bucket, access_key, secret_key, region: "us-east-1", faults, root, background }
    }

    /// `http://127.0.0.1:PORT`, for path-style requests.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.background.address)
    }

    /// Once every client is dead: waits until what they had sent is done with.
    pub fn wait_for_the_dead(&self) {
        // Whoever came before this request has been let in when it is answered.
        http::get(self.background.address.port(), "/").unwrap();
        let Inner { busy, rested, .. } = &*self.faults.0;
        let busy = busy.lock().unwrap();
        let (busy, _) = rested.wait_timeout_while(busy, DEADLINE, |busy| *busy > 0).unwrap();
        assert_eq!(*busy, 0, "somebody is still connected");
    }

    /// The keys of all committed objects, sorted.
    pub fn objects(&self) -> Vec<String> {
        let folder = self.folder();
        let files = walkdir::WalkDir::new(&folder).into_iter().map(Result::unwrap);
        let mut keys: Vec<String> = files
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| entry.path().strip_prefix(&folder).unwrap().to_str().unwrap().to_owned())
            .collect();
        keys.sort();
        keys
    }

    /// Where the bucket lies on disk: a key is a path below it.
    pub fn folder(&self) -> PathBuf {
        self.root.path().join(self.bucket)
    }

    /// Multipart uploads that were neither completed nor aborted, and those whose parts are left.
    pub fn incomplete_uploads(&self) -> BTreeSet<String> {
        let names = std::fs::read_dir(self.root.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        // s3s-fs keeps `.upload-ID.json` and `.upload_id-ID.part-N` beside its buckets.
        names
            .filter_map(|name| {
                let open = name.strip_prefix(".upload-").and_then(|id| id.strip_suffix(".json"));
                let part =
                    name.strip_prefix(".upload_id-").and_then(|id| id.split(".part-").next());
                open.or(part).map(str::to_owned)
            })
            .collect()
    }
}

/// What the server does instead of its work.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// Answers so, with the error code that S3 would give: 403, 404, 500 or 503.
    Status(u16),
    /// Says nothing and reads nothing until [`Faults::clear`].
    Hang,
    /// Reads so many bytes of the request's body, then cuts the connection.
    CutRequest(usize),
    /// Does its work, then cuts the connection after so many bytes of the answer's body.
    CutResponse(usize),
    /// Does its work, then cuts the connection without an answer.
    LoseAnswer,
    /// As for a key that is not known.
    RejectCredentials,
}

/// Which requests: by method and by a part of `path?query`, empty for any.
#[derive(Debug, Clone)]
pub struct Rule {
    method: String,
    part: String,
    skip: usize,
    every: usize,
    times: usize,
    seen: usize,
    hits: usize,
}

impl Rule {
    pub fn on(method: &str, part: &str) -> Self {
        let (method, part) = (method.to_owned(), part.to_owned());
        Self { method, part, skip: 0, every: 1, times: usize::MAX, seen: 0, hits: 0 }
    }

    pub fn any() -> Self {
        Self::on("", "")
    }

    /// Lets the first `count` matching requests pass.
    pub fn skip(self, count: usize) -> Self {
        Self { skip: count, ..self }
    }

    /// Only each `nth` of the matching requests, starting with the first that is not skipped.
    pub fn every(self, nth: usize) -> Self {
        Self { every: nth, ..self }
    }

    /// At most so many times.
    pub fn times(self, count: usize) -> Self {
        Self { times: count, ..self }
    }

    fn matches(&self, seen: &Seen) -> bool {
        (self.method.is_empty() || self.method == seen.method) && seen.target.contains(&self.part)
    }

    /// Counts one matching request; whether it is hit.
    fn hit(&mut self) -> bool {
        self.seen += 1;
        let due = self.seen > self.skip && (self.seen - self.skip - 1).is_multiple_of(self.every);
        let hit = due && self.hits < self.times;
        self.hits += usize::from(hit);
        hit
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// `path?query`.
    pub target: String,
}

/// The handle that sets faults while the server runs.
#[derive(Clone, Default)]
pub struct Faults(Arc<Inner>);

#[derive(Default)]
struct Inner {
    rules: Mutex<Vec<(Rule, Act)>>,
    seen: Inbox<Seen>,
    cleared: Notify,
    busy: Mutex<usize>,
    rested: Condvar,
}

/// A connection, until its client is gone; or a request that is being worked on.
struct Busy(Faults);

impl Busy {
    fn begin(faults: &Faults) -> Self {
        *faults.0.busy.lock().unwrap() += 1;
        Self(faults.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.0.busy.lock().unwrap() -= 1;
        self.0.0.rested.notify_all();
    }
}

impl Faults {
    /// Adds a fault; of several that match, the first added acts.
    pub fn set(&self, rule: Rule, act: Act) {
        self.0.rules.lock().unwrap().push((rule, act));
    }

    /// No faults from now on; requests that hang are cut.
    pub fn clear(&self) {
        self.0.rules.lock().unwrap().clear();
        self.0.cleared.notify_waiters();
    }

    /// How often a fault acted, all rules together.
    pub fn hits(&self) -> usize {
        self.0.rules.lock().unwrap().iter().map(|(rule, _)| rule.hits).sum()
    }

    /// All requests so far, faulty or not.
    pub fn requests(&self) -> Vec<Seen> {
        self.0.seen.all()
    }

    /// How many requests match by method and part.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let rule = Rule::on(method, part);
        self.requests().iter().filter(|seen| rule.matches(seen)).count()
    }

    /// Waits until `count` matching requests have come.
    pub fn wait_for(&self, method: &str, part: &str, count: usize) {
        let rule = Rule::on(method, part);
        self.0.seen.wait_until(&format!("{count} times {method} {part}"), |all| {
            (all.iter().filter(|seen| rule.matches(seen)).count() >= count).then_some(())
        });
    }

    fn act_on(&self, seen: Seen) -> Option<Act> {
        let mut rules = self.0.rules.lock().unwrap();
        let matching = rules.iter_mut().filter(|(rule, _)| rule.matches(&seen));
        let act = matching.filter_map(|(rule, act)| rule.hit().then_some(*act)).next();
        drop(rules);
        self.0.seen.push(seen);
        act
    }
}

async fn accept(listener: TcpListener, service: S3Service, faults: Faults) {
    while let Ok((stream, _)) = listener.accept().await {
        let connection = Busy::begin(&faults);
        let (service, faults) = (service.clone(), faults.clone());
        let answer = tower::service_fn(move |request: Request<_>| {
            handle(service.clone(), faults.clone(), request.map(Body::new))
        });
        tokio::spawn(async move {
            let builder = Builder::new(TokioExecutor::new());
            let answer = TowerToHyperService::new(answer);
            // A connection that was cut on purpose ends with an error; so do clients that go away.
            drop(builder.serve_connection(TokioIo::new(stream), answer).await);
            drop(connection);
        });
    }
}

/// An error here makes hyper close the connection without an answer.
static CREATES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn handle(
    s3: S3Service,
    faults: Faults,
    request: Request<Body>,
) -> io::Result<Response<Body>> {
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let seen = Seen { method: request.method().to_string(), target };
    let cleared = faults.0.cleared.notified();
    match faults.act_on(seen) {
        None => {
            // As S3 does it, and s3s-fs does not: nobody comes between the look and the write.
            let _alone = match request.headers().contains_key("if-none-match") {
                true => Some(CREATES.lock().await),
                false => None,
            };
            work(&s3, &faults, request).await
        }
        Some(Act::Status(status)) => refuse(request, status, code_of(status)).await,
        Some(Act::RejectCredentials) => refuse(request, 403, "InvalidAccessKeyId").await,
        Some(Act::Hang) => {
            cleared.await;
            Err(cut())
        }
        Some(Act::CutRequest(after)) => {
            let mut body = request.into_body().into_data_stream();
            let mut read = 0;
            while read < after
                && let Some(Ok(bytes)) = body.next().await
            {
                read += bytes.len();
            }
            Err(cut())
        }
        Some(Act::LoseAnswer) => {
            drop(work(&s3, &faults, request).await?);
            Err(cut())
        }
        Some(Act::CutResponse(after)) => {
            let (head, body) = work(&s3, &faults, request).await?.into_parts();
            Ok(Response::from_parts(head, cut_after(body, after)))
        }
    }
}

/// To its end, even when the client goes away: a store does not complete an upload by halves.
async fn work(
    s3: &S3Service,
    faults: &Faults,
    request: Request<Body>,
) -> io::Result<Response<Body>> {
    let request = request.map(s3s::Body::http_body_unsync);
    let (s3, busy) = (s3.clone(), Busy::begin(faults));
    let working = tokio::spawn(async move {
        let response = s3.call(request).await;
        drop(busy);
        response
    });
    let response = working.await.map_err(io::Error::other)?;
    let response = response.map_err(|error| io::Error::other(format!("{error:?}")))?;
    Ok(response.map(Body::new))
}

/// The body is read first, as the real service does: an answer in its midst may be lost.
async fn refuse(request: Request<Body>, status: u16, code: &str) -> io::Result<Response<Body>> {
    let mut body = request.into_body().into_data_stream();
    while let Some(Ok(_)) = body.next().await {}
    let xml = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>a test's fault</Message></Error>"
    );
    let response = Response::builder().status(status).header("content-type", "application/xml");
    response.body(Body::from(xml)).map_err(io::Error::other)
}

fn code_of(status: u16) -> &'static str {
    match status {
        403 => "AccessDenied",
        404 => "NoSuchBucket",
        503 => "SlowDown",
        _ => "InternalError",
    }
}

fn cut_after(body: Body, after: usize) -> Body {
    let mut left = after;
    let bytes = body.into_data_stream().map_err(io::Error::other);
    let bytes = bytes.and_then(move |mut bytes: Bytes| {
        bytes.truncate(left);
        left -= bytes.len();
        std::future::ready(if bytes.is_empty() { Err(cut()) } else { Ok(bytes) })
    });
    Body::from_stream(bytes.chain(futures::stream::once(async { Err(cut()) })))
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "cut by the test")
}
