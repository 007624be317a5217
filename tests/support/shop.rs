//! A job `shop` of a tiny database, in a folder and perhaps on S3, under a clock that the test sets.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::config::{HEAD, LOCAL, s3};
use super::program::{Output, Respaldo};
use super::s3::S3;
use super::stored::Stored;
use super::tool;

const LIBFAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// A job `shop` of a tiny database, in a folder and perhaps on S3, and a clock.
pub struct Shop {
    pub respaldo: Respaldo,
    pub s3: Option<S3>,
    /// What follows the job's other keys in the config; sections too.
    pub more: String,
}

impl Shop {
    /// `keep` is the inner part of the job's `keep`.
    pub fn new(keep: &str) -> Self {
        Self::with(keep, None)
    }

    pub fn with_s3(keep: &str) -> Self {
        Self::with(keep, Some(S3::timeless()))
    }

    pub fn with(keep: &str, s3: Option<S3>) -> Self {
        let found = std::path::Path::new(LIBFAKETIME).exists();
        assert!(found, "{LIBFAKETIME} is missing: run scripts/test-servers.sh");
        let respaldo = Respaldo::new("")
            .env("LD_PRELOAD", LIBFAKETIME)
            .env("FAKETIME_TIMESTAMP_FILE", "@DIR@/now")
            .env("FAKETIME_NO_CACHE", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DONT_RESET", "1");
        tool(Command::new("sqlite3").arg(respaldo.path("shop.db")).arg("CREATE TABLE t (a)"));
        let shop = Self { respaldo, s3, more: String::new() };
        shop.keep(keep);
        shop
    }

    pub fn keep(&self, keep: &str) {
        let offsite = self.s3.as_ref().map(|server| s3("offsite", server, "x")).unwrap_or_default();
        self.respaldo.write_config(&format!(
            "timezone = \"UTC\"\n{HEAD}{LOCAL}{offsite}[jobs.shop]\nretries = 0\ndeadline = \"1h\"\n\
             source = {{ sqlite = \"@DIR@/shop.db\" }}\nkeep = {{ {keep} }}\n{}",
            self.more
        ));
    }

    /// Sets the clock: `2025-11-24 12:00:00`, UTC.
    pub fn at(&self, now: &str) -> &Self {
        self.respaldo.write("now", &format!("@{now}\n"));
        self
    }

    pub fn backup(&self) -> Output {
        self.respaldo.run(&["backup", "shop"])
    }

    pub fn prune(&self, more: &[&str]) -> Output {
        self.respaldo.run(&[&["prune", "shop"], more].concat())
    }

    pub fn local(&self) -> PathBuf {
        self.respaldo.path("backups")
    }

    /// The ids in the folder; on S3 with [`Self::remote`].
    pub fn ids(&self) -> Vec<String> {
        Stored::ids(&self.local(), "shop")
    }

    pub fn remote(&self) -> Vec<String> {
        let server = self.s3.as_ref().unwrap();
        let ids = Stored::ids(&server.folder().join("x"), "shop");
        // s3s-fs leaves the folder of an object that was deleted; a key is what counts.
        let there = |id: &String| {
            server.objects().iter().any(|key| key.starts_with(&format!("x/shop/{id}/")))
        };
        ids.into_iter().filter(there).collect()
    }

    /// A backup for each of these days of November 2025, at noon.
    pub fn november(&self, days: std::ops::RangeInclusive<u32>) {
        for day in days {
            self.at(&format!("2025-11-{day:02} 12:00:00")).backup().expect(0);
        }
    }
}

/// Ids of backups at noon of these days of November 2025.
pub fn noons(days: &[u32]) -> Vec<String> {
    days.iter().map(|day| format!("202511{day:02}T120000Z")).collect()
}

/// Ids to the minute: a run may begin a second after the clock was set.
pub fn minutes(ids: &[String]) -> Vec<String> {
    ids.iter().map(|id| format!("{}00Z", &id[..13])).collect()
}

/// The word and the reasons of each backup in `prune --json`.
pub fn decisions(plan: &Value) -> Vec<(bool, String)> {
    let decisions = plan["decisions"].as_array().unwrap();
    let reasons = |d: &Value| {
        let reasons = d["reasons"].as_array().unwrap();
        assert!(!reasons.is_empty(), "no reason: {d}");
        reasons.iter().map(|r| r.as_str().unwrap()).collect::<Vec<_>>().join(", ")
    };
    decisions.iter().map(|d| (d["keep"].as_bool().unwrap(), reasons(d))).collect()
}
