//! The config file as it is written: what the schema, the loader and `config show` share. Each doc
//! comment is the key's description in editors. Knows spelling and types; must not check meaning.

mod alert;
mod job;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::settings::{Depth, PgFormat, PgKind, Unreadable};
pub(super) use alert::{FileAlert, FileEmail, FileHeartbeat, FileSlack, FileWebhook};
pub(super) use job::{FileDrill, FileHooks, FileJob, FileVerify, FileWal};

/// The config of respaldo.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileConfig {
    /// The time zone of schedules and of retention's days, such as "America/Lima". Default: TZ,
    /// else UTC.
    #[schemars(extend("examples" = ["America/Lima"]))]
    pub timezone: Option<String>,
    /// The folder of the catalog, the run logs and the signing key. Default: /var/lib/respaldo.
    pub data_dir: Option<PathBuf>,
    /// How many runs go on at once. Default: 2.
    #[schemars(range(min = 1, max = 64))]
    pub workers: Option<usize>,
    /// How many runs read from one database server at once. Default: 1.
    #[schemars(range(min = 1, max = 64))]
    pub runs_per_server: Option<usize>,
    /// How long a destination may make no progress before a run goes on without it. Default: 60s.
    #[schemars(extend("examples" = ["60s"]))]
    pub stall: Option<String>,
    /// Public keys of other installations whose backups may be restored here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "names")]
    pub trusted_keys: Vec<String>,
    pub server: FileServer,
    pub sync: FileSync,
    /// The places where backups are kept, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub destinations: BTreeMap<String, FileDestination>,
    /// What is backed up, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub jobs: BTreeMap<String, FileJob>,
    /// Who is told of trouble and of its end, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub alerts: BTreeMap<String, FileAlert>,
}

/// What is answered over HTTP, and to whom.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileServer {
    /// Address and port. Default: 0.0.0.0:8080.
    #[schemars(extend("examples" = ["0.0.0.0:8080"]))]
    pub listen: Option<String>,
    /// Names, beside addresses and plain host names, by which the daemon is asked: a request for
    /// another one is refused.
    #[schemars(schema_with = "names", extend("examples" = [["backups.example.com"]]))]
    pub hosts: Option<Vec<String>>,
    /// What is open without a token: none, or read for all that a viewer sees. Default: none.
    #[schemars(extend("enum" = ["none", "read"]))]
    pub anonymous: Option<String>,
    /// Browsers send the page's cookie over HTTPS only. Default: false.
    pub secure_cookies: Option<bool>,
    /// Tokens from the config, by name, beside those that `respaldo token create` makes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tokens: BTreeMap<String, FileToken>,
}

/// Who may come in over HTTP with a token.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileToken {
    /// What it may do.
    #[schemars(extend("enum" = ["viewer", "operator", "admin"]))]
    pub role: Option<String>,
    /// The token, of 20 characters at least; better in token_file.
    #[schemars(schema_with = "secret")]
    pub token: Option<String>,
    /// The file that holds the token.
    pub token_file: Option<PathBuf>,
}

/// When a destination that lacks what another one of its job has is brought up to date.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileSync {
    /// Cron lines or names such as @daily; an empty list: only when asked to. Default: @hourly.
    #[schemars(schema_with = "lines")]
    pub schedule: Option<Vec<String>>,
}

/// A place where backups are kept.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileDestination {
    /// file:///folder, s3://bucket/prefix/, az://container/prefix/, gs://bucket/prefix/ or
    /// sftp://user@host:port/path/
    #[schemars(extend("examples" = ["file:///backups", "s3://bucket/prefix/"]))]
    pub url: String,
    /// Whether it is somewhere else than what is backed up. Default: true, for file:// false.
    pub offsite: Option<bool>,
    /// The URL of a store that speaks as S3, Azure or GCS does. Default: for S3 AWS_ENDPOINT_URL_S3,
    /// AWS_ENDPOINT_URL, else AWS; for the others their own.
    #[schemars(extend("examples" = ["https://minio.example.com:9000"]))]
    pub endpoint: Option<String>,
    /// The bucket's region. Default: AWS_REGION, else AWS_DEFAULT_REGION.
    #[schemars(extend("examples" = ["us-east-1"]))]
    pub region: Option<String>,
    /// The id of an access key for s3://. Default: AWS_ACCESS_KEY_ID, else the machine's own role.
    #[serde(default)]
    #[schemars(schema_with = "secret")]
    pub access_key_id: Option<String>,
    /// The file that holds the access key's id.
    pub access_key_id_file: Option<PathBuf>,
    /// The secret of that access key. Default: AWS_SECRET_ACCESS_KEY, else the machine's own role.
    #[serde(default)]
    #[schemars(schema_with = "secret")]
    pub secret_access_key: Option<String>,
    /// The file that holds the secret access key.
    pub secret_access_key_file: Option<PathBuf>,
    /// The token of temporary credentials. Default: AWS_SESSION_TOKEN.
    #[serde(default)]
    #[schemars(schema_with = "secret")]
    pub session_token: Option<String>,
    /// The file that holds the session token.
    pub session_token_file: Option<PathBuf>,
    /// The storage class of new objects; on Azure their access tier.
    #[schemars(extend("examples" = ["STANDARD_IA"]))]
    pub storage_class: Option<String>,
    /// Encryption by the store.
    #[schemars(extend("enum" = ["AES256", "aws:kms"]))]
    pub sse: Option<String>,
    /// The KMS key's id or ARN, for sse = "aws:kms".
    pub kms_key: Option<String>,
    /// Put the bucket into the path instead of the host name. Default: true with an endpoint.
    pub path_style: Option<bool>,
    /// Send a SHA-256 with each part. Default: true.
    pub checksum: Option<bool>,
    /// The storage account of az://. Default: AZURE_STORAGE_ACCOUNT_NAME.
    pub account: Option<String>,
    /// An access key of the storage account. Default: AZURE_STORAGE_ACCOUNT_KEY, else the machine's
    /// own identity.
    #[serde(default)]
    #[schemars(schema_with = "secret")]
    pub access_key: Option<String>,
    /// The file that holds the access key.
    pub access_key_file: Option<PathBuf>,
    /// A shared access signature for az://, in place of an access key. Default:
    /// AZURE_STORAGE_SAS_TOKEN.
    #[serde(default)]
    #[schemars(schema_with = "secret")]
    pub sas_token: Option<String>,
    /// The file that holds the shared access signature.
    pub sas_token_file: Option<PathBuf>,
    /// A service account's key for gs://, as JSON. Default: the file that
    /// GOOGLE_APPLICATION_CREDENTIALS names, else the machine's own account.
    #[serde(default)]
    #[schemars(schema_with = "secret")]
    pub credentials: Option<String>,
    /// The file that holds the service account's key.
    pub credentials_file: Option<PathBuf>,
    /// The public keys by which sftp:// knows its server, as in `ssh-ed25519 AAAA...`. Default:
    /// SFTP_HOST_KEY.
    #[serde(default)]
    #[schemars(schema_with = "names")]
    pub host_key: Option<Vec<String>>,
    /// The account's password for sftp://. Default: SFTP_PASSWORD.
    #[serde(default)]
    #[schemars(schema_with = "secret")]
    pub password: Option<String>,
    /// The file that holds the account's password.
    pub password_file: Option<PathBuf>,
    /// A private key for sftp://, in place of a password. Default: SFTP_PRIVATE_KEY.
    #[serde(default)]
    #[schemars(schema_with = "secret")]
    pub private_key: Option<String>,
    /// The file that holds the private key.
    pub private_key_file: Option<PathBuf>,
    /// What the private key is encrypted with. Default: SFTP_PASSPHRASE.
    #[serde(default)]
    #[schemars(schema_with = "secret")]
    pub passphrase: Option<String>,
    /// The file that holds the passphrase.
    pub passphrase_file: Option<PathBuf>,
    /// The most that goes up, and comes down, in a second. Default: no limit.
    #[schemars(extend("examples" = ["10MB/s"]))]
    pub bandwidth: Option<String>,
    /// Never delete there: retention only says what would go. Default: false.
    pub append_only: Option<bool>,
    /// With less free space than this you are told, in percent or as a size; only for file:// and
    /// sftp://. Default: what two backups of each job take, and at least 5%.
    #[schemars(extend("examples" = ["10%", "5GiB"]))]
    pub free: Option<String>,
}

/// One of postgres, mysql, sqlite, files and command, and what belongs to it.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileSource {
    /// postgres://user@host:port/database?sslmode=verify-full
    #[schemars(extend("examples" = ["postgres://user@host:5432/database"], "x-address" = true))]
    pub postgres: Option<String>,
    /// mysql://user@host:port/database?ssl-mode=verify_identity, for MariaDB as well.
    #[schemars(extend("examples" = ["mysql://user@host:3306/database"], "x-address" = true))]
    pub mysql: Option<String>,
    /// The database's password.
    #[schemars(schema_with = "secret")]
    pub password: Option<String>,
    /// The file that holds the database's password.
    pub password_file: Option<PathBuf>,
    /// How PostgreSQL is backed up. Default: logical.
    pub kind: Option<PgKind>,
    /// Keep a slot on a server whose max_slot_wal_keep_size is -1, which fills its disk when nobody
    /// reads it. Default: false.
    pub allow_unbounded_slot: Option<bool>,
    /// Let PostgreSQL 15 and newer compress a base backup before it is sent, on one core of the server: in
    /// about 0.6 of the CPU time of compressing it here. Default: true.
    pub server_compression: Option<bool>,
    /// How pg_dump writes. Default: custom.
    pub format: Option<PgFormat>,
    /// "all", or names and patterns such as "tenant_*" of databases on the server; "!name" excepts.
    /// Default: the one in the URL.
    #[schemars(schema_with = "names")]
    pub databases: Option<Vec<String>>,
    /// "each", or names and patterns of schemas that get an artifact of their own, each of which
    /// restores alone; "!name" excepts. Every row is in some artifact all the same.
    #[schemars(schema_with = "names")]
    pub schemas: Option<Vec<String>>,
    /// Patterns of tables that are left out, such as "public.tmp_*".
    #[schemars(schema_with = "names")]
    pub exclude_tables: Option<Vec<String>>,
    /// Patterns of tables whose rows are left out.
    #[schemars(schema_with = "names")]
    pub exclude_rows: Option<Vec<String>>,
    /// How many artifacts are read at once; from 2 on, large tables get one of their own. Default: 1.
    #[schemars(range(min = 1, max = 16))]
    pub streams: Option<usize>,
    /// From this size on a table is large, for streams. Default: 256MiB.
    #[schemars(extend("examples" = ["256MiB"]))]
    pub streams_above: Option<String>,
    /// What is taken of every table to compare a restore with. Default: auto.
    pub fingerprint: Option<Depth>,
    /// Roles, tablespaces and settings of the server too. Default: true.
    pub globals: Option<bool>,
    /// The folder of pg_dump or mariadb-dump. Default: the best installed one is looked for.
    pub bin_dir: Option<PathBuf>,
    /// A database file.
    pub sqlite: Option<PathBuf>,
    /// Folders.
    #[schemars(schema_with = "names")]
    pub files: Option<Vec<String>>,
    /// Globs of what is left out, such as cache/**.
    #[schemars(schema_with = "names")]
    pub exclude: Option<Vec<String>>,
    /// What to do about a file that can't be read. Default: fail.
    pub unreadable: Option<Unreadable>,
    /// A program and its arguments, whose standard output is backed up; no shell takes it apart.
    #[schemars(schema_with = "names")]
    pub command: Option<Vec<String>>,
    /// What the command's output is called. Default: the program's name.
    pub name: Option<String>,
    /// The ending of the file that holds it, such as "rdb". Default: bin.
    pub extension: Option<String>,
    /// Variables for the command; each value is taken for a secret.
    #[schemars(schema_with = "secrets")]
    pub env: Option<BTreeMap<String, String>>,
    /// A program that a restore is handed to on its standard input. Default: none, restore --to PATH.
    #[schemars(schema_with = "names")]
    pub restore_command: Option<Vec<String>>,
}

/// Who can read the backups: one of age, openpgp, and a passphrase. Private keys are not given here.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileEncrypt {
    /// Public keys of age; `respaldo key generate` makes a pair.
    #[schemars(schema_with = "names")]
    pub age: Option<Vec<String>>,
    /// Files of OpenPGP public keys, as `gpg --armor --export` writes them.
    #[schemars(schema_with = "names")]
    pub openpgp: Option<Vec<String>>,
    /// Encrypt with age and a passphrase, which then is on this machine too.
    #[schemars(schema_with = "secret")]
    pub age_passphrase: Option<String>,
    /// The file that holds the passphrase for age.
    pub age_passphrase_file: Option<PathBuf>,
    /// Encrypt with OpenPGP and a passphrase, which then is on this machine too.
    #[schemars(schema_with = "secret")]
    pub openpgp_passphrase: Option<String>,
    /// The file that holds the passphrase for OpenPGP.
    pub openpgp_passphrase_file: Option<PathBuf>,
    /// Schemas, by name, whose own archive is encrypted to others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub schemas: BTreeMap<String, FileRecipients>,
}

/// One of age and openpgp.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileRecipients {
    /// Public keys of age.
    #[schemars(schema_with = "names")]
    pub age: Option<Vec<String>>,
    /// Files of OpenPGP public keys.
    #[schemars(schema_with = "names")]
    pub openpgp: Option<Vec<String>>,
}

fn secret(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "writeOnly": true })
}

fn secrets(_: &mut SchemaGenerator) -> Schema {
    let value = json_schema!({ "type": "string", "writeOnly": true });
    json_schema!({ "type": ["object", "null"], "additionalProperties": value })
}

/// One string or a list. `x-split` parts a string that came from the environment.
fn names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "array"], "items": { "type": "string" }, "x-split": "," })
}

/// As `names`; cron lines contain commas.
fn lines(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "array"], "items": { "type": "string" }, "x-split": ";" })
}
