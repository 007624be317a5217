//! The rules by which a store deletes on its own, in the form that each kind of store reads: for
//! destinations where respaldo itself deletes nothing. Knows formats; must not decide how long.

use serde_json::{Value, json};

use crate::model::JobName;

/// Uploads that nobody finished go after so many days.
const ABORT_DAYS: u32 = 7;

/// How old a job's backups may become before the store may delete them. None: it never may.
#[derive(Debug, Clone)]
pub struct Expiry {
    pub job: JobName,
    pub days: Option<u32>,
}

/// Rules for one bucket.
#[derive(Debug)]
pub struct Lifecycle {
    /// What puts them into force, once they are in the file rules.json.
    pub command: String,
    pub rules: Value,
}

/// Of each job that has an end: its name, the beginning of its backups' keys, and the days. An id
/// begins with its year, and nothing else in a job's folder begins so.
fn ends<'a>(prefix: &'a str, of: &'a [Expiry]) -> impl Iterator<Item = (String, String, u32)> + 'a {
    of.iter().filter_map(move |expiry| {
        let job = expiry.job.as_str();
        Some((format!("respaldo-{job}"), format!("{}{job}/2", folder(prefix)), expiry.days?))
    })
}

fn folder(prefix: &str) -> String {
    if prefix.is_empty() { String::new() } else { format!("{prefix}/") }
}

pub(super) fn s3(bucket: &str, prefix: &str, expiries: &[Expiry]) -> Lifecycle {
    let abort = json!({
        "ID": "respaldo-uploads", "Status": "Enabled", "Filter": { "Prefix": folder(prefix) },
        "AbortIncompleteMultipartUpload": { "DaysAfterInitiation": ABORT_DAYS },
    });
    let ends = ends(prefix, expiries).map(|(id, prefix, days)| {
        json!({
            "ID": id, "Status": "Enabled", "Filter": { "Prefix": prefix },
            "Expiration": { "Days": days },
            // Where the bucket has versions, an expired object would only be hidden.
            "NoncurrentVersionExpiration": { "NoncurrentDays": 1 },
        })
    });
    let rules: Vec<Value> = std::iter::once(abort).chain(ends).collect();
    Lifecycle {
        command: format!(
            "aws s3api put-bucket-lifecycle-configuration --bucket {bucket} \
             --lifecycle-configuration file://rules.json"
        ),
        rules: json!({ "Rules": rules }),
    }
}

pub(super) fn gcs(bucket: &str, prefix: &str, expiries: &[Expiry]) -> Lifecycle {
    let rule = |action: &str, prefix: String, days: u32| {
        let condition = match prefix.is_empty() {
            true => json!({ "age": days }),
            false => json!({ "age": days, "matchesPrefix": [prefix] }),
        };
        json!({ "action": { "type": action }, "condition": condition })
    };
    let abort = rule("AbortIncompleteMultipartUpload", folder(prefix), ABORT_DAYS);
    let ends = ends(prefix, expiries).map(|(_, prefix, days)| rule("Delete", prefix, days));
    let rules: Vec<Value> = std::iter::once(abort).chain(ends).collect();
    Lifecycle {
        command: format!("gcloud storage buckets update gs://{bucket} --lifecycle-file=rules.json"),
        rules: json!({ "rule": rules }),
    }
}

/// Blocks of an upload that nobody finished vanish by themselves there.
pub(super) fn azure(container: &str, prefix: &str, expiries: &[Expiry]) -> Lifecycle {
    let rules: Vec<Value> = ends(prefix, expiries)
        .map(|(name, prefix, days)| {
            let delete = json!({ "daysAfterCreationGreaterThan": days });
            json!({
                "enabled": true, "name": name, "type": "Lifecycle",
                "definition": {
                    "actions": { "baseBlob": { "delete": delete } },
                    "filters": {
                        "blobTypes": ["blockBlob"], "prefixMatch": [format!("{container}/{prefix}")],
                    },
                },
            })
        })
        .collect();
    Lifecycle {
        command: "az storage account management-policy create --account-name ACCOUNT \
            --resource-group GROUP --policy @rules.json"
            .to_owned(),
        rules: json!({ "rules": rules }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_backups_match_and_only_jobs_with_an_end() {
        let expiry = |job: &str, days| Expiry { job: job.parse().unwrap(), days };
        let expiries = [expiry("db", Some(400)), expiry("media", None)];
        let Lifecycle { rules, command } = s3("b", "a/p", &expiries);
        assert!(command.contains("--bucket b "));
        assert_eq!(rules["Rules"].as_array().unwrap().len(), 2);
        assert_eq!(rules["Rules"][0]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"], 7);
        assert_eq!(rules["Rules"][1]["Filter"]["Prefix"], "a/p/db/2");
        assert_eq!(rules["Rules"][1]["Expiration"]["Days"], 400);
        let rules = gcs("b", "", &expiries).rules;
        assert_eq!(rules["rule"][0]["condition"], json!({ "age": 7 }));
        assert_eq!(rules["rule"][1]["condition"], json!({ "age": 400, "matchesPrefix": ["db/2"] }));
        let rules = azure("c", "p", &expiries).rules;
        assert_eq!(rules["rules"].as_array().unwrap().len(), 1);
        let definition = &rules["rules"][0]["definition"];
        assert_eq!(definition["filters"]["prefixMatch"], json!(["c/p/db/2"]));
    }
}
