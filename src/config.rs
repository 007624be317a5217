//! The config floor: one file, its `config.d`, and the environment in; [`Settings`] out, or one
//! sentence that says which key is wrong. Knows every key and every variable that respaldo reads;
//! must not open a source, a destination or a mail server.

mod address;
mod ambient;
mod environment;
mod file;
mod interpolate;
mod layers;
mod resolve;
mod settings;
mod shape;
mod show;
mod units;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::fault::{Fault, Result};

pub use environment::{Variables, environment};
pub use settings::{
    AlertRoute, Channel, Command, Depth, Destination, DestinationKind, Drill, Email, Encrypt,
    Given, Hooks, Incremental, Job, Mysql, PgFormat, Physical, Postgres, Recipients, Server,
    Settings, Source, Tls, Token, Unreadable, Verify, Written,
};
pub use show::show;
pub use units::duration;

/// The file that is read when none is named.
const DEFAULT_FILE: &str = "/etc/respaldo/config.toml";

/// Settings, and what a person should hear about how they came to be.
#[derive(Debug)]
pub struct Loaded {
    pub settings: Settings,
    /// What is allowed but probably not meant; one sentence each, without secrets.
    pub warnings: Vec<String>,
    /// The files read, in order; none means that the environment alone was enough.
    pub files: Vec<PathBuf>,
}

/// Reads `file`, else the one in `RESPALDO_CONFIG`, else `/etc/respaldo/config.toml` where it
/// exists, else the environment alone. `now` is where a search for a schedule's first time starts.
pub fn load(file: Option<&Path>, now: Timestamp) -> Result<Loaded> {
    load_from(file, &environment::process(), now)
}

/// As [`load`], with `variables` in place of the process's environment.
pub fn load_from(file: Option<&Path>, variables: &Variables, now: Timestamp) -> Result<Loaded> {
    read(find(file, variables).as_deref(), variables, now)
}

/// Where the daemon of this config listens. Nothing else of it is looked at: no secret is read, and
/// no schedule worked out.
pub fn listen(file: Option<&Path>) -> Result<SocketAddr> {
    let variables = environment::process();
    let (base, files) = match find(file, &variables) {
        Some(file) => layers::files(&file)?,
        None => (vec![ambient::listen(&variables)?], Vec::new()),
    };
    let tree = layers::merge(base, &files, layers::overrides(&variables), &variables)?;
    resolve::server::listen(&tree, tree.root["server"]["listen"].as_str().map(str::to_owned))
}

fn find(file: Option<&Path>, variables: &Variables) -> Option<PathBuf> {
    let named = variables.get("RESPALDO_CONFIG").filter(|name| !name.is_empty());
    file.map(Path::to_owned).or_else(|| named.map(PathBuf::from)).or_else(|| {
        Some(PathBuf::from(DEFAULT_FILE)).filter(|file| {
            // One that can't be looked at is there: reading it will say what is wrong.
            file.try_exists().unwrap_or(true)
        })
    })
}

/// What belongs to a destination and may come from the environment.
const LOGINS: [&str; 4] = ["AWS_", "AZURE_STORAGE_", "GOOGLE_APPLICATION_CREDENTIALS", "SFTP_"];

/// What belongs to a database's server.
const SERVERS: [&str; 4] = ["DB_", "POSTGRES_", "PG", "DATABASE_URL"];
/// What belongs to the backups of one instead.
const NOT_SERVERS: [&str; 3] = ["POSTGRES_EXTRA_OPTS", "POSTGRES_CLUSTER", "DB_NAME_FILE"];

/// A destination that no config names, from its URL; credentials come from the environment.
pub fn destination(url: &str, now: Timestamp) -> Result<Destination> {
    let mut variables = environment::process();
    variables.retain(|name, _| LOGINS.iter().any(|login| name.starts_with(login)));
    let url = if url.starts_with('/') { format!("file://{url}") } else { url.to_owned() };
    variables.insert("RESPALDO__DESTINATIONS__FROM__URL".into(), url);
    variables.insert("RESPALDO__JOBS__FROM__SOURCE__SQLITE".into(), "/nowhere".into());
    let mut settings = read(None, &variables, now)?.settings;
    settings.destinations.remove("from").ok_or_else(|| Fault::usage("the URL names no destination"))
}

/// `database` on the server that the environment names (`DB_HOST`, `PGHOST` and so on), for a
/// restore on a machine without a config.
pub fn ambient_postgres(database: &str, now: Timestamp) -> Result<Postgres> {
    let mut variables = environment::process();
    // Its server alone: what else is set there may be right for backups, and is no matter now.
    variables.retain(|name, _| {
        SERVERS.iter().any(|server| name.starts_with(server))
            && !NOT_SERVERS.iter().any(|other| name.starts_with(other))
    });
    if !variables.contains_key("DATABASE_URL") {
        // Whichever one they name: it is the server that is asked for.
        variables.insert("DB_NAME".into(), "postgres".into());
    }
    let settings = read(None, &variables, now)?.settings;
    let sources = settings.jobs.into_values().flat_map(|job| job.sources);
    sources
        .filter_map(|source| match source {
            Source::Postgres(postgres) => {
                Some(Postgres { database: database.to_owned(), ..postgres })
            }
            _ => None,
        })
        .next()
        .ok_or_else(|| {
            Fault::usage("no database server is named")
                .hint("set DB_HOST, DB_USER and DB_PASSWORD (or PGHOST and so on), or use --config")
        })
}

/// `database` on the server that `DATABASE_URL` names, for a restore on a machine without a config.
pub fn ambient_mysql(database: &str, now: Timestamp) -> Result<Mysql> {
    let mut variables = environment::process();
    variables.retain(|name, _| name.starts_with("DATABASE_URL") || name.starts_with("DB_PASSWORD"));
    let jobs = match variables.is_empty() {
        true => Default::default(),
        false => read(None, &variables, now)?.settings.jobs,
    };
    match jobs.into_values().flat_map(|job| job.sources).next() {
        Some(Source::Mysql(mysql)) => Ok(Mysql { database: database.to_owned(), ..mysql }),
        _ => Err(Fault::usage("no MySQL or MariaDB server is named")
            .hint("set DATABASE_URL=mysql://user@host/database and DB_PASSWORD, or use --config")),
    }
}

fn read(file: Option<&Path>, variables: &Variables, now: Timestamp) -> Result<Loaded> {
    let mut warnings = Vec::new();
    let (base, files) = match file {
        Some(file) => layers::files(file)?,
        None => (vec![ambient::layer(variables, &mut warnings)?], Vec::new()),
    };
    let schema = schema();
    warnings.extend(layers::near_misses(variables, &schema));
    let mut tree = layers::merge(base, &files, layers::overrides(variables), variables)?;
    shape::fit(&mut tree, &schema)?;
    let raw: file::FileConfig = serde_path_to_error::deserialize(&tree.root).map_err(|error| {
        let key = error.path().to_string();
        Fault::usage(format!("{key}{}: {}", tree.place(&key), error.inner()))
            .hint("`respaldo config schema` describes every key")
    })?;
    let settings = resolve::settings(raw, &tree, variables, now, &mut warnings)?;
    Ok(Loaded { settings, warnings, files })
}

/// The JSON Schema of the config file, for editors; the loader checks a file against it as well.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(file::FileConfig).to_value()
}

/// A commented config to start from; it loads once `DB_PASSWORD` is set.
pub fn template() -> &'static str {
    include_str!("../config/respaldo.example.toml")
}

/// The one of `known` that `word` was probably meant to be.
fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&word, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.len().max(word.len()) / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// `; did you mean X?`, or nothing.
fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    suggest(word, known).map_or(String::new(), |name| format!("; did you mean {name}?"))
}
