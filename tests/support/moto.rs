//! A second S3 server, moto's, as a process: it knows storage classes, tags, object locks and missing
//! buckets, where the one inside the process does not; but it checks no credentials.

use std::ffi::OsStr;

use super::guard::Guard;
use super::http::{self, Reply};
use super::testbed;

pub struct Moto {
    pub port: u16,
    _guard: Guard,
}

impl Moto {
    pub fn start() -> Self {
        let server = testbed("venv/bin/moto_server");
        // An unbuffered Python, for the line that says the port.
        let command = ["env", "PYTHONUNBUFFERED=1"].map(OsStr::new);
        let arguments = ["-H", "127.0.0.1", "-p", "0"].map(OsStr::new);
        let guard = Guard::run(&[&command[..], &[server.as_os_str()], &arguments].concat());
        let rest = guard.wait_for_line("Running on http://127.0.0.1:");
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Self { port: digits.parse().unwrap(), _guard: guard }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn make_bucket(&self, bucket: &str) {
        let reply = self.ask("PUT", &format!("/{bucket}"), "");
        assert_eq!(reply.status, 200, "make bucket {bucket}: {}", reply.body);
    }

    /// One whose objects may be locked; it has versions, as S3 asks for.
    pub fn make_lockable_bucket(&self, bucket: &str) {
        let lockable = [("x-amz-bucket-object-lock-enabled", "true")];
        let reply = self.ask_with("PUT", &format!("/{bucket}"), &lockable, "");
        assert_eq!(reply.status, 200, "make bucket {bucket}: {}", reply.body);
    }

    /// Locks every object that is there now.
    pub fn lock(&self, bucket: &str, until: &str) {
        let request = format!(
            "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
        );
        for key in self.keys(bucket) {
            let reply = self.ask("PUT", &format!("/{bucket}/{key}?retention"), &request);
            assert_eq!(reply.status, 200, "lock {key}: {}", reply.body);
        }
    }

    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let listing = self.ask("GET", &format!("/{bucket}?list-type=2"), "").body;
        let keys = listing.split("<Key>").skip(1);
        keys.map(|rest| rest.split("</Key>").next().unwrap().to_owned()).collect()
    }

    /// What `HEAD` says of an object.
    pub fn head(&self, bucket: &str, key: &str) -> Reply {
        self.ask("HEAD", &format!("/{bucket}/{key}"), "")
    }

    /// `STANDARD` where the answer names none, as S3 does.
    pub fn storage_class(&self, bucket: &str, key: &str) -> String {
        let reply = self.head(bucket, key);
        assert_eq!(reply.status, 200, "{bucket}/{key}");
        reply.header("x-amz-storage-class").unwrap_or("STANDARD").to_owned()
    }

    /// Any request, as the owner.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Reply {
        self.ask_with(method, path, &[], body)
    }

    fn ask_with(&self, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Reply {
        // moto takes the service and region from here, and checks nothing.
        let login = "AWS4-HMAC-SHA256 Credential=test/20250101/us-east-1/s3/aws4_request, \
            SignedHeaders=host, Signature=0";
        let headers = [&[("Authorization", login)], more].concat();
        http::request(self.port, method, path, &headers, body).unwrap()
    }
}
