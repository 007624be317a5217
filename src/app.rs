//! The rooms wired together: settings become sources, destinations, jobs and routes. Knows every
//! kind; must not decide anything.

mod alerts;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::{self, DestinationKind, Loaded, Settings};
use crate::destination::{Bucket, Destination, Local, Sftp, Terms, Uploads};
use crate::fault::{Fault, Result};
use crate::job::{ChainPlan, DrillPlan, Hooks, Job, LogPlan, Place, Site, Unlock, VerifyPlan};
use crate::model::{Actor, Compression, JobName};
use crate::pipeline::{self, Encoding};
use crate::signature::Signer;
use crate::source::command::Command;
use crate::source::files::{Files, Unreadable};
use crate::source::mysql::Mysql;
use crate::source::postgres::physical::Physical;
use crate::source::postgres::{DumpFormat, Postgres, PostgresServer, ProvingGround};
use crate::source::sqlite::Sqlite;
use crate::source::{Print, Source};

/// Everything that one config amounts to.
pub struct App {
    pub site: Arc<Site>,
    pub jobs: Vec<Arc<Job>>,
    pub settings: Settings,
}

impl App {
    /// Opens the data folder and wires everything; `actor` answers for what is done.
    pub async fn open(loaded: &Loaded, clock: Clock, actor: Actor) -> Result<Self> {
        let catalog = Catalog::open(&loaded.settings.data_dir).await?;
        Self::wire(loaded, catalog, clock, actor).await
    }

    /// Wires everything around a catalog that is open already.
    pub async fn wire(
        loaded: &Loaded,
        catalog: Catalog,
        clock: Clock,
        actor: Actor,
    ) -> Result<Self> {
        let settings = loaded.settings.clone();
        let data_dir = &settings.data_dir;
        let signer = Signer::load_or_create(&data_dir.join("signing.key"))?;
        let mut trusted = settings.trusted_keys.clone();
        trusted.push(signer.public_key());
        let jobs = jobs(&settings, &catalog, &clock)?;
        let site = Arc::new(Site {
            installation: catalog.installation().await?,
            bin_dirs: bin_dirs(&settings),
            catalog,
            clock,
            signer,
            trusted,
            data_dir: data_dir.clone(),
            config: config::show(&settings),
            routes: settings.alerts.iter().map(alerts::route).collect(),
            papers: alerts::papers(&settings),
            actor,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        });
        Ok(Self { site, jobs, settings })
    }

    /// The job of that name.
    pub fn job(&self, name: &str) -> Result<&Arc<Job>> {
        self.jobs.iter().find(|job| job.name.as_str() == name).ok_or_else(|| {
            let names: Vec<&str> = self.jobs.iter().map(|job| job.name.as_str()).collect();
            Fault::usage(format!("there is no job '{name}'"))
                .hint(format!("the config has: {}", names.join(", ")))
        })
    }
}

fn jobs(settings: &Settings, catalog: &Catalog, clock: &Clock) -> Result<Vec<Arc<Job>>> {
    let uploads: Arc<dyn Uploads> = Arc::new(catalog.clone());
    let mut jobs = Vec::new();
    for job in settings.jobs.values() {
        let mut places = Vec::new();
        for (name, policy) in &job.keep {
            let Some(written) = settings.destinations.get(name) else { continue };
            let destination = destination(name, written, Some(uploads.clone()))?;
            let off_site = settings.off_site.contains(name);
            let (policy, free) = (policy.clone(), written.free);
            let window = job.wal.as_ref().and_then(|wal| wal.keep.get(name)).copied();
            places.push(Place { destination, policy, off_site, free, window });
        }
        jobs.push(Arc::new(Job {
            name: job.name.clone(),
            sources: job
                .sources
                .iter()
                .map(|written| source(job, written))
                .collect::<Result<_>>()?,
            max_age: job
                .max_age
                .or_else(|| job.schedule.derived_max_age(clock.now()))
                // Without full ones by a schedule, what is due are these.
                .or_else(|| job.incremental.as_ref()?.schedule.derived_max_age(clock.now())),
            schedule: job.schedule.clone(),
            incremental: job
                .incremental
                .as_ref()
                .map(|chain| ChainPlan { schedule: chain.schedule.clone(), most: chain.most }),
            places,
            catch_up: job.catch_up,
            encoding: Encoding {
                compression: job.compression,
                level: job.level,
                volume_bytes: job.volume_bytes,
                seal: job.encrypt.as_ref().map(|encrypt| encrypt.to.seal.clone()),
            },
            schema_seals: job
                .encrypt
                .iter()
                .flat_map(|encrypt| &encrypt.schemas)
                .map(|(schema, to)| (schema.clone(), to.seal.clone()))
                .collect(),
            hooks: job.hooks.as_ref().map(hooks),
            drill: job.drill.as_ref().map(|written| drill(written, job)),
            verify: job
                .verify
                .as_ref()
                .map(|verify| VerifyPlan { schedule: verify.schedule.clone(), days: verify.days }),
            wal: job.wal.as_ref().map(|wal| LogPlan {
                max_lag: wal.max_lag,
                every: wal.every,
                slot_limit: wal.slot_limit,
            }),
            keep_old: job.keep_old,
            on_change: job.on_change,
            deadline: job.deadline,
            retries: job.retries,
            stall: settings.stall,
            anomaly: job.anomaly,
            sync: job.sync,
        }));
    }
    Ok(jobs)
}

fn bin_dirs(settings: &Settings) -> Vec<PathBuf> {
    let sources = settings.jobs.values().flat_map(|job| &job.sources);
    let named = sources.filter_map(|source| match source {
        config::Source::Postgres(postgres) => postgres.bin_dir.clone(),
        config::Source::Physical(physical) => physical.server.bin_dir.clone(),
        _ => None,
    });
    named.collect()
}

/// A live destination. `uploads` remembers what a crash would leave open.
pub fn destination(
    name: &str,
    written: &config::Destination,
    uploads: Option<Arc<dyn Uploads>>,
) -> Result<Arc<dyn Destination>> {
    let inner: Arc<dyn Destination> = match &written.kind {
        DestinationKind::Local { path } => Arc::new(Local::new(name, path)),
        DestinationKind::S3(options) => Arc::new(Bucket::s3(name, options, uploads)?),
        DestinationKind::Azure(options) => Arc::new(Bucket::azure(name, options)?),
        DestinationKind::Gcs(options) => Arc::new(Bucket::gcs(name, options, uploads)?),
        DestinationKind::Sftp(options) => Arc::new(Sftp::new(name, options.clone())),
    };
    if written.bandwidth.is_none() && !written.append_only {
        return Ok(inner);
    }
    Ok(Arc::new(Terms::new(inner, written.bandwidth, written.append_only)))
}

/// Password hashes are worth having only where nobody else can read them: `encrypted`.
fn source(job: &config::Job, written: &config::Source) -> Result<Arc<dyn Source>> {
    let encrypted = job.encrypt.is_some();
    Ok(match written {
        config::Source::Postgres(written) if written.databases.is_empty() => {
            Arc::new(self::postgres(written, encrypted))
        }
        config::Source::Postgres(written) => Arc::new(PostgresServer {
            postgres: self::postgres(written, encrypted),
            databases: written.databases.clone(),
        }),
        config::Source::Physical(physical) => Arc::new(Physical {
            postgres: self::postgres(&physical.server, encrypted),
            slot: slot_of(&job.name),
            allow_unbounded_slot: physical.allow_unbounded_slot,
            zstd: (job.compression == Compression::Zstd && physical.server_compression)
                .then(|| job.level.unwrap_or(pipeline::LEVEL)),
            listed: job.incremental.is_some(),
        }),
        config::Source::Command(command) => Arc::new(command.clone()),
        config::Source::Mysql(mysql) => Arc::new(self::mysql(mysql, encrypted)),
        config::Source::Sqlite { path, fingerprint } => {
            Arc::new(Sqlite { path: path.clone(), fingerprint: level(*fingerprint) })
        }
        config::Source::Files { paths, exclude, unreadable } => {
            let unreadable = match unreadable {
                config::Unreadable::Fail => Unreadable::Fail,
                config::Unreadable::Warn => Unreadable::Warn,
            };
            Arc::new(Files::new(paths.clone(), exclude, unreadable)?)
        }
    })
}

/// What the job's replication slot is called: lower-case letters, digits and `_`, at most 63.
fn slot_of(job: &JobName) -> String {
    let mut slot = format!("respaldo_{}", job.as_str().replace('-', "_"));
    slot.truncate(63);
    slot
}

fn level(depth: config::Depth) -> Print {
    match depth {
        config::Depth::Off => Print::Off,
        config::Depth::Auto => Print::Auto,
        config::Depth::Counts => Print::Counts,
        config::Depth::Content => Print::Content,
    }
}

fn postgres(written: &config::Postgres, role_passwords: bool) -> Postgres {
    Postgres {
        host: written.host.clone(),
        port: written.port,
        user: written.user.clone(),
        database: written.database.clone(),
        password: written.password.clone(),
        sslmode: written.sslmode.clone(),
        sslrootcert: written.sslrootcert.clone(),
        sslcert: written.sslcert.clone(),
        sslkey: written.sslkey.clone(),
        format: match written.format {
            config::PgFormat::Custom => DumpFormat::Custom,
            config::PgFormat::Plain => DumpFormat::Plain,
        },
        selection: written.selection.clone(),
        streams: written.streams,
        fingerprint: level(written.fingerprint),
        globals: written.globals,
        role_passwords,
        bin_dir: written.bin_dir.clone(),
    }
}

fn drill(written: &config::Drill, job: &config::Job) -> DrillPlan {
    let ground = |server: &config::Postgres| -> Arc<dyn Source> {
        // The programs that read the backup are those that made it.
        let bin_dir = job.sources.iter().find_map(|source| match source {
            config::Source::Postgres(postgres) => postgres.bin_dir.clone(),
            config::Source::Physical(physical) => physical.server.bin_dir.clone(),
            _ => None,
        });
        Arc::new(ProvingGround(Postgres { bin_dir, ..postgres(server, false) }))
    };
    DrillPlan {
        schedule: written.schedule.clone(),
        checks: written.checks.clone(),
        programs: written.programs.clone(),
        deadline: written.deadline,
        unlock: Unlock {
            identities: written.identity_files.clone(),
            passphrase: written.passphrase_file.clone(),
        },
        server: written.server.as_ref().map(ground),
    }
}

fn hooks(written: &config::Hooks) -> Hooks {
    Hooks {
        before: written.before.clone(),
        after: written.after.clone(),
        before_restore: written.before_restore.clone(),
        after_restore: written.after_restore.clone(),
        limit: written.limit,
    }
}

fn mysql(written: &config::Mysql, with_hashes: bool) -> Mysql {
    Mysql {
        host: written.host.clone(),
        port: written.port,
        user: written.user.clone(),
        database: written.database.clone(),
        password: written.password.clone(),
        ssl_mode: written.ssl_mode.clone(),
        ssl_ca: written.ssl_ca.clone(),
        ssl_cert: written.ssl_cert.clone(),
        ssl_key: written.ssl_key.clone(),
        bin_dir: written.bin_dir.clone(),
        hashes: with_hashes,
    }
}

/// Whoever runs this command: the user's name, else the number.
pub fn person() -> Actor {
    let id = rustix::process::getuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then_some(name)
    });
    Actor::command(user.unwrap_or(&id))
}

/// What a restore needs on a machine where no config is: a site in a folder of its own, and, for
/// what the manifest says was backed up, a source to load into.
pub async fn bare_site(data_dir: &Path, clock: Clock) -> Result<Site> {
    let catalog = Catalog::open(data_dir).await?;
    Ok(Site {
        installation: catalog.installation().await?,
        bin_dirs: Vec::new(),
        catalog,
        clock,
        signer: Signer::load_or_create(&data_dir.join("signing.key"))?,
        trusted: Vec::new(),
        data_dir: data_dir.to_owned(),
        config: String::new(),
        routes: Vec::new(),
        papers: Vec::new(),
        actor: person(),
        host: String::new(),
    })
}

/// A source that knows how a backup of `engine` is loaded into a place of its own, and no server.
pub fn loader(engine: crate::model::Engine, name: &str) -> Result<Arc<dyn Source>> {
    use crate::model::Engine;
    Ok(match engine {
        Engine::Postgres => Arc::new(Postgres::nowhere(name)),
        Engine::Physical => Arc::new(Physical::nowhere()),
        Engine::Mysql => Arc::new(Mysql::nowhere(name)),
        Engine::Sqlite => Arc::new(Sqlite { path: "/nowhere".into(), fingerprint: Print::Off }),
        Engine::Command => Arc::new(Command {
            name: name.to_owned(),
            extension: String::new(),
            words: Vec::new(),
            restore: Vec::new(),
            env: Default::default(),
        }),
        Engine::Files => Arc::new(Files::new(Vec::new(), &[], Unreadable::Fail)?),
    })
}

/// A source that can load a backup of `engine`, from the environment alone.
pub fn ambient_source(
    engine: crate::model::Engine,
    database: &str,
    clock: &Clock,
) -> Result<Arc<dyn Source>> {
    use crate::model::Engine;
    Ok(match engine {
        Engine::Postgres => {
            Arc::new(postgres(&config::ambient_postgres(database, clock.now())?, false))
        }
        Engine::Physical => Arc::new(Physical::nowhere()),
        Engine::Sqlite => Arc::new(Sqlite { path: PathBuf::new(), fingerprint: Print::Off }),
        Engine::Mysql => Arc::new(mysql(&config::ambient_mysql(database, clock.now())?, false)),
        // Without its config nobody knows the program; --to PATH does without.
        Engine::Command => Arc::new(Command {
            name: database.to_owned(),
            extension: String::new(),
            words: Vec::new(),
            restore: Vec::new(),
            env: Default::default(),
        }),
        Engine::Files => Arc::new(Files::new(Vec::new(), &[], Unreadable::Fail)?),
    })
}
