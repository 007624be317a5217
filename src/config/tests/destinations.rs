//! Each way in which a destination's URL and keys can be wrong, said in one sentence.

use super::refusals::check;
use super::*;

#[test]
fn destinations_and_their_urls() {
    let with = |url: &str| format!("{PLAIN}[destinations.x]\nurl = '{url}'");
    check(&[
        (&with("/backups2"), &["it is a path", "write file:///backups2"]),
        (&with("file://backups2"), &["three slashes", "file:///backups"]),
        (&with("file:///"), &["names no folder"]),
        (&with("s4://b/p"), &["no s4://; did you mean s3?"]),
        (&with("s3:///p"), &["names no bucket"]),
        (&with("s3://b/a/../c"), &["empty or dotted"]),
        (&with("s3://AKIA:hunter2@b/p"), &["s3://***@b/p", "credentials don't belong"]),
        (&with("file:///backups/"), &["the same place as destinations.local"]),
        (
            &format!("{}\nsse = 'AES'", with("s3://b")),
            &["destinations.x.sse can't be \"AES\"", "AES256, aws:kms"],
        ),
        (&format!("{}\nkms_key = 'k'", with("s3://b")), &["kms_key", "needs sse"]),
        (&format!("{}\naccess_key_id = 'k'", with("s3://b")), &["secret_access_key is missing"]),
        (
            &format!("{}\nsecret_access_key = 'hunter2'", with("s3://b")),
            &["access_key_id is missing"],
        ),
        (
            &format!("{}\nendpoint = 'minio:9000'", with("s3://b")),
            &["destinations.x.endpoint", "https://"],
        ),
        (
            &format!("{}\nendpoint = 'http://u:hunter2@m'", with("s3://b")),
            &["credentials don't belong"],
        ),
        (
            &format!("{}\nregion = 'x'", with("file:///y")),
            &["destinations.x.region", "s3:// destinations only"],
        ),
        (
            &format!("{}\nfree = '10%'", with("s3://b")),
            &["destinations.x.free", "file:// and sftp:// destinations only"],
        ),
        (
            &format!("{}\nfree = '110%'", with("file:///y")),
            &["destinations.x.free can't be \"110%\"", "10% or 5GiB"],
        ),
        (
            &format!("{}\nbandwidth = '10'", with("s3://b")),
            &["destinations.x.bandwidth can't be \"10\"", "10MB/s"],
        ),
        (
            &format!("{}\nbandwidth = '1kB/s'", with("s3://b")),
            &["destinations.x.bandwidth can't be \"1kB/s\"", "at least 70kB/s", "stall"],
        ),
        (
            &format!("{PLAIN}[destinations.Bad]\nurl = 's3://b'"),
            &["destinations.Bad", "lower-case"],
        ),
        (&format!("{PLAIN}[jobs.'a b']\nsource={{sqlite='/x'}}"), &["'a b' is not a name"]),
    ]);
    let bench = Bench::new(&with("s3://b")).set("AWS_SECRET_ACCESS_KEY", "hunter2");
    assert!(bench.refusal().contains("AWS_ACCESS_KEY_ID is not"));
    check(&[(
        "[jobs.db]\nsource = { sqlite = '/x' }",
        &["nowhere to keep", "[destinations.local]"],
    )]);
}

#[test]
fn azure_and_gcs_and_their_keys() {
    let with = |url: &str, more: &str| format!("{PLAIN}[destinations.x]\nurl = '{url}'\n{more}");
    let azure = |more: &str| with("az://c/p", &format!("account = 'keeper'\n{more}"));
    check(&[
        (
            &with("az://c/p", ""),
            &["destinations.x.account", "missing", "AZURE_STORAGE_ACCOUNT_NAME"],
        ),
        (&with("az://", "account = 'k'"), &["names no container", "az://container/prefix/"]),
        (
            &with("az://c", "account = 'keeper.blob.core.windows.net'"),
            &["destinations.x.account can't be \"keeper.blob", "name alone"],
        ),
        (&azure("access_key = 'hunter2!'"), &["destinations.x.access_key", "base64"]),
        (&azure("sas_token = 'hunter2'"), &["destinations.x.sas_token", "sig="]),
        (&azure("access_key = 'a'\nsas_token = 'b'"), &["sas_token is given as well"]),
        (
            &azure("storage_class = 'cool'"),
            &["destinations.x.storage_class can't be \"cool\"", "did you mean Cool?"],
        ),
        (&azure("region = 'x'"), &["destinations.x.region", "s3:// destinations only"]),
        (&with("gs://", ""), &["names no bucket", "gs://bucket/prefix/"]),
        (
            &with("gs://b", "credentials = 'hunter2'"),
            &["destinations.x.credentials", "service account"],
        ),
        (
            &with("gs://b", "credentials_file = '/nope'"),
            &["destinations.x.credentials_file", "/nope"],
        ),
        (
            &with("gs://b", "storage_class = 'GLACIER'"),
            &["destinations.x.storage_class can't be \"GLACIER\"", "STANDARD, NEARLINE"],
        ),
        (&with("gs://b", "account = 'x'"), &["destinations.x.account", "az:// destinations only"]),
    ]);
    let ambient = Bench::new(&with("gs://b", "")).set("GOOGLE_APPLICATION_CREDENTIALS", "/nope");
    assert!(ambient.refusal().contains("/nope"), "{}", ambient.refusal());
}

#[test]
fn sftp_and_its_keys() {
    let with = |url: &str, more: &str| format!("{PLAIN}[destinations.x]\nurl = '{url}'\n{more}");
    let place = "sftp://u@h/x";
    check(&[
        (&with("sftp://h/x", "password = 'p'"), &["names no user", "sftp://user@host:22/path/"]),
        (&with("sftp://u@/x", "password = 'p'"), &["names no host"]),
        (&with("sftp://u@h", "password = 'p'"), &["names no folder"]),
        (&with("sftp://u@h/a/../b", "password = 'p'"), &["can't have .."]),
        (&with("sftp://u@h:x/a", "password = 'p'"), &["no port"]),
        (
            &with("sftp://u:hunter2@h/x", ""),
            &["sftp://***@h/x", "a password doesn't belong into it", "password_file"],
        ),
        (&with(place, ""), &["destinations.x.private_key", "neither it nor password is given"]),
        (&with(place, "password = 'a'\nprivate_key = 'b'"), &["private_key is given as well"]),
        (&with(place, "password = 'a'\npassphrase = 'b'"), &["destinations.x.passphrase", "none"]),
        (
            &with(place, "private_key = 'hunter2'"),
            &["destinations.x.private_key", "no private key"],
        ),
        (
            &with(place, "password = 'a'\nhost_key = 'AAAA'"),
            &["destinations.x.host_key can't be \"AAAA\"", "ssh-ed25519 AAAA", "config check"],
        ),
        (
            &with(place, "password = 'a'\nstorage_class = 'x'"),
            &["destinations.x.storage_class", "s3:// and az:// and gs:// destinations only"],
        ),
        (&with("ftp://h/x", ""), &["no ftp://", "did you mean sftp?"]),
    ]);
}
