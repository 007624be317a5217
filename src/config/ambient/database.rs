//! The database of environment-only mode: its server, one name or several, and what people told
//! `pg_dump`. Knows the spellings of URLs and of options; must not know where backups go.

use super::{Ambient, Found, default};
use crate::config::address::{self, Address};
use crate::fault::{Fault, Result};

const HOST: [&str; 4] = ["DB_HOST", "POSTGRES_HOST", "PGHOST", "POSTGRES_PORT_5432_TCP_ADDR"];
const PORT: [&str; 4] = ["DB_PORT", "POSTGRES_PORT", "PGPORT", "POSTGRES_PORT_5432_TCP_PORT"];
const USER: [&str; 3] = ["DB_USER", "POSTGRES_USER", "PGUSER"];
const NAME: [&str; 4] = ["DB_NAME", "POSTGRES_DB", "POSTGRES_DATABASE", "PGDATABASE"];
const PASSWORD: [&str; 3] = ["DB_PASSWORD", "POSTGRES_PASSWORD", "PGPASSWORD"];
/// Options for `pg_dump`, of postgres-backup-local.
const OPTIONS: &str = "POSTGRES_EXTRA_OPTS";

/// What an option of `pg_dump` means to somebody who does not write its file.
#[derive(Clone, Copy)]
enum Meaning {
    /// How the file looks, or what its restore does: nothing here.
    Shape,
    /// Only a part is wanted; all of it is backed up, and that part can be restored alone.
    Part,
    Tables,
    Rows,
    Schemas,
}

/// Short name, long name, meaning, and whether it takes a value.
const KNOWN: [(&str, &str, Meaning, bool); 16] = [
    ("-Z", "--compress", Meaning::Shape, true),
    ("-F", "--format", Meaning::Shape, true),
    ("-b", "--blobs", Meaning::Shape, false),
    ("-b", "--large-objects", Meaning::Shape, false),
    ("-v", "--verbose", Meaning::Shape, false),
    ("-c", "--clean", Meaning::Shape, false),
    ("-C", "--create", Meaning::Shape, false),
    ("-O", "--no-owner", Meaning::Shape, false),
    ("-x", "--no-privileges", Meaning::Shape, false),
    ("-x", "--no-acl", Meaning::Shape, false),
    ("", "--if-exists", Meaning::Shape, false),
    ("-n", "--schema", Meaning::Part, true),
    ("-t", "--table", Meaning::Part, true),
    ("-T", "--exclude-table", Meaning::Tables, true),
    ("-N", "--exclude-schema", Meaning::Schemas, true),
    ("", "--exclude-table-data", Meaning::Rows, true),
];

impl Ambient<'_> {
    /// Sets the source of job `db`; false where no variable speaks of a database.
    pub(super) fn database(&mut self) -> Result<bool> {
        let url = self.first(&["DATABASE_URL"])?;
        let whole = self.truth("POSTGRES_CLUSTER")? == Some(true);
        let name = self.first(&NAME)?.or_else(|| whole.then(|| default("postgres")));
        let Some(name) = name else {
            if let Some(url) = url {
                return self.database_url(&url).map(|()| true);
            }
            for names in [&HOST[..], &PORT, &USER, &PASSWORD] {
                // Kubernetes sets some of them for whatever service is called so.
                let own = |found: &Found| {
                    !found.value.starts_with("tcp://") && !found.variable.contains("_TCP_")
                };
                if let Some(found) = self.first(names)?.filter(own) {
                    return Err(Fault::usage(format!(
                        "{} is set, but no variable names the database",
                        found.variable
                    ))
                    .hint("set DB_NAME (or POSTGRES_DB, PGDATABASE, DATABASE_URL)"));
                }
            }
            return Ok(false);
        };
        if url.is_some() {
            self.warnings.push(format!("DATABASE_URL is ignored, since {} is set", name.variable));
        }
        let names = names(&name);
        let Some(first) = names.first() else {
            return Err(Fault::usage(format!("{} names no database", name.variable))
                .hint("for example shop, or shop,forum"));
        };
        let mut query = Vec::new();
        for (variable, key) in [
            ("PGSSLMODE", "sslmode"),
            ("PGSSLROOTCERT", "sslrootcert"),
            ("PGSSLCERT", "sslcert"),
            ("PGSSLKEY", "sslkey"),
        ] {
            if let Some(found) = self.first(&[variable])? {
                query.push((key.to_owned(), found.value));
            }
        }
        let url = Address {
            scheme: "postgres".into(),
            user: Some(self.first_or(&USER, "postgres")?.value),
            password: None,
            host: self.first_or(&HOST, "postgres")?.value,
            port: Some(self.port()?),
            path: (*first).to_owned(),
            query,
        };
        self.layer.set("jobs.db.source.postgres", url.show(), &name.variable);
        if whole {
            self.layer.set("jobs.db.source.databases", "all", "POSTGRES_CLUSTER");
        } else if names.len() > 1 {
            self.layer.set("jobs.db.source.databases", names.join(","), &name.variable);
        }
        self.options()?;
        if let Some(password) = self.first(&PASSWORD)? {
            self.set_secret("jobs.db.source.password", &password);
        }
        Ok(true)
    }

    fn port(&self) -> Result<u16> {
        let port = self.first_or(&PORT, "5432")?;
        let text = port.value.trim();
        // Kubernetes and linked containers set POSTGRES_PORT=tcp://10.0.0.7:5432 by themselves.
        let number = text.strip_prefix("tcp://").and_then(|rest| rest.rsplit(':').next());
        number.unwrap_or(text).parse().map_err(|_| {
            Fault::usage(format!("{} can't be {:?}: it is no port", port.variable, port.value))
                .hint("PostgreSQL's own is 5432")
        })
    }

    /// What frameworks write: `postgresql+psycopg2://`, `postgis://`, `sqlite:////path`, and
    /// parameters that only their own pools understand.
    fn database_url(&mut self, found: &Found) -> Result<()> {
        let wrong = |why: &str| {
            let shown = address::redact(&found.value);
            Fault::usage(format!("{} can't be {shown:?}: {why}", found.variable))
                .hint("for example postgres://user:password@host:5432/database")
        };
        if let Some(path) = found.value.strip_prefix("sqlite:///") {
            self.layer.set("jobs.db.source.sqlite", path, &found.variable);
            return Ok(());
        }
        let mut url = address::parse(&found.value).map_err(|why| wrong(&why))?;
        let scheme = url.scheme.split('+').next().unwrap_or_default();
        let kind = match scheme {
            "postgres" | "postgresql" | "postgis" | "psql" | "pgsql" => "postgres",
            "mysql" | "mysql2" | "mariadb" => "mysql",
            _ => return Err(wrong("it does not start with postgres:// or mysql://")),
        };
        url.scheme = kind.into();
        let ours = ["host", "socket"];
        url.query.retain(|(name, _)| ours.contains(&name.as_str()) || name.starts_with("ssl"));
        self.layer.set(format!("jobs.db.source.{kind}"), url.show(), &found.variable);
        let password = url.password.map(|value| Found { value, variable: String::new() });
        if let Some(password) = password.map_or_else(|| self.first(&PASSWORD), |p| Ok(Some(p)))? {
            self.set_secret("jobs.db.source.password", &password);
        }
        Ok(())
    }

    /// Takes over what people told `pg_dump` to leave out. What would make a backup hold more than
    /// they meant is a warning, what can't be obeyed an error.
    fn options(&mut self) -> Result<()> {
        let Some(found) = self.first(&[OPTIONS])? else { return Ok(()) };
        let (mut tables, mut rows, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        let mut words = found.value.split_whitespace();
        while let Some(word) = words.next() {
            let Some((meaning, value)) = option(word, &mut words) else {
                return Err(Fault::usage(format!(
                    "{}: respaldo can't do what {word} asks of pg_dump",
                    found.variable
                ))
                .hint("take it out; docs/sources.md says what a config can ask for"));
            };
            let value = &value.replace('"', "");
            match meaning {
                Meaning::Shape => {}
                Meaning::Part => parts.push(word),
                Meaning::Tables => tables.push(table(value)),
                Meaning::Rows => rows.push(table(value)),
                Meaning::Schemas => tables.push(format!("{value}.*")),
            }
        }
        for (key, patterns) in [("exclude_tables", tables), ("exclude_rows", rows)] {
            if !patterns.is_empty() {
                let key = format!("jobs.db.source.{key}");
                self.layer.set(key, patterns.join(","), &found.variable);
            }
        }
        if let Some(part) = parts.first() {
            self.warnings.push(format!(
                "{OPTIONS}: {part} is not obeyed, all of the database is backed up; \
                 `respaldo restore --schema` or --table takes a part of it"
            ));
        }
        Ok(())
    }
}

/// The names in a variable; postgres-backup-local takes spaces and lines between them too.
fn names(found: &Found) -> Vec<&str> {
    let spaced = found.variable.starts_with("POSTGRES_DB");
    let parts = found.value.split(|c: char| c == ',' || spaced && c.is_whitespace());
    parts.map(str::trim).filter(|name| !name.is_empty()).collect()
}

/// The meaning of an option and its value, which may be the next word.
fn option<'a>(
    word: &'a str,
    rest: &mut impl Iterator<Item = &'a str>,
) -> Option<(Meaning, &'a str)> {
    for (short, long, meaning, takes_value) in KNOWN {
        if word == long || word == short {
            return Some((meaning, if takes_value { rest.next()? } else { "" }));
        }
        let attached = match word.strip_prefix(long) {
            Some(value) => value.strip_prefix('='),
            None if short.is_empty() => None,
            None => word.strip_prefix(short),
        };
        if let Some(value) = attached.filter(|_| takes_value) {
            return Some((meaning, value));
        }
    }
    None
}

/// A pattern of `pg_dump`, which may go without a schema.
fn table(pattern: &str) -> String {
    match pattern.contains('.') {
        true => pattern.to_owned(),
        false => format!("*.{pattern}"),
    }
}
