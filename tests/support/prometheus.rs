//! A real Prometheus that scrapes a daemon as `deploy/prometheus` says, and answers PromQL.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::guard::Guard;
use super::{free_port, http, temp_folder};

pub struct Prometheus {
    port: u16,
    _guard: Guard,
}

/// What is shipped, by its path below `deploy`.
pub fn shipped(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    assert!(path.exists(), "{} is missing", path.display());
    path
}

impl Prometheus {
    /// Scrapes `127.0.0.1:target` every second, and evaluates the rules as often.
    pub fn start(target: u16) -> Self {
        let folder = temp_folder("prometheus").keep();
        let config = std::fs::read_to_string(shipped("prometheus/prometheus.yml")).unwrap();
        let replaced = config
            .replace("respaldo:8080", &format!("127.0.0.1:{target}"))
            .replace("scrape_interval: 30s", "scrape_interval: 1s");
        assert_ne!(config, replaced);
        let config = folder.join("prometheus.yml");
        std::fs::write(&config, format!("global: {{ evaluation_interval: 1s }}\n{replaced}"))
            .unwrap();
        let rules = "respaldo.rules.yml";
        std::fs::copy(shipped("prometheus").join(rules), folder.join(rules)).unwrap();
        let port = free_port();
        let arguments = [
            "prometheus".to_owned(),
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        let arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(|word| word.as_ref()).collect();
        let guard = Guard::run_in("KILL", &folder, &arguments);
        guard.wait_for_line("Server is ready to receive web requests");
        Self { port, _guard: guard }
    }

    /// The samples that an expression has now: `metric` and `value` each.
    #[track_caller]
    pub fn query(&self, expression: &str) -> Vec<Value> {
        let query: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let reply = http::get(self.port, &format!("/api/v1/query?query={query}")).unwrap();
        assert_eq!(reply.status, 200, "{expression}: {}", reply.body);
        reply.json()["data"]["result"].as_array().unwrap().clone()
    }
}
