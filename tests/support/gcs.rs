//! What of Google's XML API respaldo uses, in memory: enough to see the shape of each request. It is not
//! Google's server, and proves nothing about that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::serve::Background;

pub struct Gcs {
    pub bucket: &'static str,
    state: Shared,
    background: Background,
}

type Shared = Arc<Mutex<Bucket>>;

#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, (String, BTreeMap<usize, Bytes>)>,
    begun: usize,
    /// What every request is answered, in place of its answer.
    refusal: Option<(StatusCode, &'static str, &'static str)>,
    requests: Vec<String>,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    class: String,
}

impl Gcs {
    pub fn start() -> Self {
        let state = Shared::default();
        let shared = state.clone();
        let background = Background::serve(move |listener| async move {
            let app = Router::new()
                .fallback(answer)
                .layer(DefaultBodyLimit::disable())
                .with_state(shared);
            axum::serve(listener, app).await.unwrap();
        });
        Self { bucket: "backups", state, background }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.background.address)
    }

    /// A service account that needs no token.
    pub fn credentials(&self) -> String {
        json!({
            "type": "service_account", "client_email": "keeper@example.com", "private_key_id": "1",
            "private_key": "none", "disable_oauth": true
        })
        .to_string()
    }

    /// From now on every request is refused.
    pub fn refuse(&self, status: u16, code: &'static str, message: &'static str) {
        let status = StatusCode::from_u16(status).unwrap();
        self.state.lock().unwrap().refusal = Some((status, code, message));
    }

    pub fn open_uploads(&self) -> usize {
        self.state.lock().unwrap().uploads.len()
    }

    pub fn class(&self, key: &str) -> String {
        self.state.lock().unwrap().objects[key].class.clone()
    }

    /// `METHOD path?query` of each so far.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }
}

async fn answer(
    State(state): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut bucket = state.lock().unwrap();
    bucket.requests.push(format!("{method} {uri}"));
    if let Some((status, code, message)) = bucket.refusal {
        return refusal(status, code, message);
    }
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(uri.query().unwrap_or("").as_bytes()).into_owned().collect();
    let path = uri.path().trim_start_matches('/');
    let (name, key) = path.split_once('/').unwrap_or((path, ""));
    if name != "backups" {
        return refusal(StatusCode::NOT_FOUND, "NoSuchBucket", "The bucket does not exist.");
    }
    let key = decode(key);
    if key.is_empty() {
        return list(&bucket, &query);
    }
    let class = headers.get("x-goog-storage-class").map(|class| class.to_str().unwrap().to_owned());
    let class = class.unwrap_or("STANDARD".into());
    match (method.as_str(), query.get("uploadId")) {
        ("POST", None) if query.contains_key("uploads") => {
            bucket.begun += 1;
            let id = format!("upload-{}", bucket.begun);
            bucket.uploads.insert(id.clone(), (class, BTreeMap::new()));
            xml(&format!(
                "<InitiateMultipartUploadResult><Bucket>{name}</Bucket><Key>{}</Key>\
                 <UploadId>{id}</UploadId></InitiateMultipartUploadResult>",
                escape(&key)
            ))
        }
        ("PUT", Some(id)) => {
            let number = query["partNumber"].parse().unwrap();
            let Some((_, parts)) = bucket.uploads.get_mut(id) else { return no_upload() };
            parts.insert(number, body);
            ([("etag", format!("\"part-{number}\""))], "").into_response()
        }
        ("POST", Some(id)) => {
            let Some((class, parts)) = bucket.uploads.remove(id) else { return no_upload() };
            let text = String::from_utf8_lossy(&body);
            assert_eq!(text.matches("<PartNumber>").count(), parts.len(), "{text}");
            let bytes = parts.into_values().collect::<Vec<_>>().concat().into();
            bucket.objects.insert(key.clone(), Object { bytes, class });
            xml(
                "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>",
            )
        }
        ("DELETE", Some(id)) => match bucket.uploads.remove(id) {
            Some(_) => StatusCode::NO_CONTENT.into_response(),
            None => no_upload(),
        },
        ("PUT", None) => {
            let only_new = headers.get("x-goog-if-generation-match").is_some_and(|g| g == "0");
            if only_new && bucket.objects.contains_key(&key) {
                let status = StatusCode::PRECONDITION_FAILED;
                return refusal(status, "PreconditionFailed", "It is there.");
            }
            bucket.objects.insert(key, Object { bytes: body, class });
            ([("etag", "\"whole\"")], "").into_response()
        }
        ("GET" | "HEAD", _) => match bucket.objects.get(&key) {
            Some(object) => {
                let date = "Mon, 24 Nov 2025 00:00:00 GMT";
                let length = object.bytes.len().to_string();
                let headers =
                    [("etag", "\"whole\""), ("last-modified", date), ("content-length", &length)];
                (headers, object.bytes.clone()).into_response()
            }
            None => refusal(StatusCode::NOT_FOUND, "NoSuchKey", "No such object."),
        },
        ("DELETE", None) => match bucket.objects.remove(&key) {
            Some(_) => StatusCode::NO_CONTENT.into_response(),
            None => refusal(StatusCode::NOT_FOUND, "NoSuchKey", "No such object."),
        },
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn list(bucket: &Bucket, query: &BTreeMap<String, String>) -> Response {
    assert_eq!(query["list-type"], "2");
    let prefix = query.get("prefix").map_or("", String::as_str);
    let mut folders = std::collections::BTreeSet::new();
    let mut text = String::new();
    for (key, object) in bucket.objects.range(prefix.to_owned()..) {
        let Some(rest) = key.strip_prefix(prefix) else { break };
        match rest.split_once('/').filter(|_| query.contains_key("delimiter")) {
            Some((folder, _)) => {
                folders.insert(format!("{prefix}{folder}/"));
            }
            None => {
                text += &format!(
                    "<Contents><Key>{}</Key><Size>{}</Size><ETag>\"whole\"</ETag>\
                     <LastModified>2025-11-24T00:00:00.000Z</LastModified></Contents>",
                    escape(key),
                    object.bytes.len()
                );
            }
        }
    }
    for folder in folders {
        text += &format!("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", escape(&folder));
    }
    xml(&format!("<ListBucketResult>{text}</ListBucketResult>"))
}

fn xml(text: &str) -> Response {
    ([("content-type", "application/xml")], format!("<?xml version='1.0'?>{text}")).into_response()
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    (status, xml(&format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>")))
        .into_response()
}

fn no_upload() -> Response {
    refusal(StatusCode::NOT_FOUND, "NoSuchUpload", "No such upload.")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn decode(text: &str) -> String {
    let plus = text.replace('+', "%2B");
    url::form_urlencoded::parse(plus.as_bytes()).next().map_or(String::new(), |(key, value)| {
        if value.is_empty() { key.into_owned() } else { format!("{key}={value}") }
    })
}
