//! A restore says what it will do, does it only when told to, believes only what it can check, works
//! on a machine where nothing of respaldo is left, and leaves the target as it was when it fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::config::{HEAD, LOCAL, postgres, s3};
use crate::support::postgres::{Database, Postgres};
use crate::support::program::{Output, Respaldo};
use crate::support::s3::S3;
use crate::support::stored::Stored;
use crate::support::tool;

const JOBS: [&str; 3] = ["db", "shop", "media"];

/// One job of each source, in a folder and on S3, backed up once.
struct Shop {
    respaldo: Respaldo,
    database: Database,
    s3: S3,
}

impl Shop {
    fn backed_up() -> Self {
        let (database, s3) = (Postgres::start().database("shop"), S3::start());
        database.psql(
            "CREATE TABLE t AS SELECT n, repeat(md5(n::text), 20) m FROM generate_series(1, 500) n",
        );
        let respaldo = Respaldo::new(&format!(
            "{HEAD}{LOCAL}{}[jobs.db]\n{}\
             [jobs.shop]\nsource = {{ sqlite = \"@DIR@/shop.db\" }}\n\
             [jobs.media]\nsource = {{ files = \"@DIR@/media\" }}\n",
            self::s3("offsite", &s3, "backups"),
            postgres(&database, "")
        ));
        sqlite(
            &respaldo.path("shop.db"),
            "CREATE TABLE t (n, m); \
             WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 500) \
             INSERT INTO t SELECT n, hex(randomblob(300)) FROM c",
        );
        for n in 0..9 {
            let text = format!("picture {n} ").repeat(2000);
            respaldo.write(&format!("media/album {n}/picture.jpg"), &text);
        }
        respaldo.run(&["backup", "--all"]).expect(0);
        Self { respaldo, database, s3 }
    }

    fn local(&self) -> PathBuf {
        self.respaldo.path("backups")
    }

    fn url(&self) -> String {
        format!("file://{}", self.local().display())
    }

    fn stored(&self, job: &str) -> Stored {
        Stored::newest(&self.local(), job)
    }

    /// Restores a job into the present database, or into a new place.
    fn restore(&self, job: &str, more: &[&str]) -> Output {
        restore(&self.respaldo, job, &self.target(job), more)
    }

    /// Where [`Self::restore`] restores a job to.
    fn target(&self, job: &str) -> String {
        match job {
            "db" => self.database.name.clone(),
            other => self.respaldo.path(&format!("restored-{other}")).display().to_string(),
        }
    }

    /// What is at the target of a job.
    fn there(&self, job: &str) -> String {
        let target = self.target(job);
        match job {
            "db" => {
                let server = Postgres::start();
                let like = format!("SELECT count(*) FROM pg_database WHERE datname ^@ '{target}'");
                format!("{} {}", self.database.fingerprint(), server.psql("postgres", &like))
            }
            "shop" if Path::new(&target).exists() => {
                sqlite(Path::new(&target), "SELECT count(*), max(length(m)) FROM t")
            }
            "media" if Path::new(&target).exists() => {
                tool(Command::new("diff").arg("-r").arg(self.respaldo.path("media")).arg(&target));
                "the same".into()
            }
            // Neither the target nor anything hidden beside it.
            _ => {
                let names = fs::read_dir(self.respaldo.folder()).unwrap();
                let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
                names.filter(|name| name.starts_with('.') || name.contains("restored")).collect()
            }
        }
    }

    /// Nothing was restored, and the database is as it was.
    #[track_caller]
    fn refused(&self, job: &str, code: i32, more: &[&str]) -> Output {
        let before = self.there(job);
        let output = self.restore(job, more).expect(code);
        assert_eq!(self.there(job), before, "{job} {more:?}");
        output
    }
}

fn restore(respaldo: &Respaldo, job: &str, target: &str, more: &[&str]) -> Output {
    let into = if job == "db" { "--database" } else { "--to" };
    respaldo.run(&[&["restore", job, into, target], more].concat())
}

fn sqlite(path: &Path, sql: &str) -> String {
    tool(Command::new("sqlite3").arg(path).arg(sql))
}

/// A machine where only the database's and the bucket's addresses are known.
fn bare(shop: &Shop) -> Respaldo {
    Respaldo::without_config()
        .env("DB_HOST", "127.0.0.1")
        .env("DB_PORT", shop.database.port().to_string())
        .env("DB_USER", "postgres")
        .env("DB_PASSWORD", shop.database.password())
        .env("AWS_ENDPOINT_URL", shop.s3.endpoint())
        .env("AWS_ACCESS_KEY_ID", shop.s3.access_key)
        .env("AWS_SECRET_ACCESS_KEY", shop.s3.secret_key)
        .env("AWS_DEFAULT_REGION", shop.s3.region)
}

#[test]
fn everything_comes_back_on_a_machine_without_config() {
    let shop = Shop::backed_up();
    let server = Postgres::start();
    let fingerprint = shop.database.fingerprint();
    for (number, url) in [shop.url(), "s3://backups/backups".into()].iter().enumerate() {
        let bare = bare(&shop);
        let listed = bare.run(&["list", "--from", url, "--json"]).expect(0).json();
        let mut jobs: Vec<&str> =
            listed.as_array().unwrap().iter().map(|b| b["job"].as_str().unwrap()).collect();
        jobs.sort_unstable();
        assert_eq!(jobs, ["db", "media", "shop"]);
        let database = server.existing(&format!("{}_bare_{number}", shop.database.name));
        let (file, folder) = (bare.path("new.db"), bare.path("new folder"));
        for (job, target) in [
            ("db", database.name.as_str()),
            ("shop", file.to_str().unwrap()),
            ("media", folder.to_str().unwrap()),
        ] {
            // The key is not known here, and that has to be accepted.
            let failed = restore(&bare, job, target, &["--from", url, "--yes"]).expect(1);
            assert!(failed.stderr.contains("key that is not known here"), "{}", failed.stderr);
            assert!(failed.stderr.contains("--trust"), "{}", failed.stderr);
            assert!(!server.has_database(&database.name) || job != "db");
            restore(&bare, job, target, &["--from", url, "--yes", "--trust"]).expect(0);
        }
        assert_eq!(database.fingerprint(), fingerprint);
        assert_eq!(sqlite(&file, "SELECT count(*) FROM t"), "500\n");
        tool(Command::new("diff").arg("-r").arg(shop.respaldo.path("media")).arg(&folder));
    }
}

#[test]
fn without_a_name_the_database_that_was_backed_up_is_meant() {
    let shop = Shop::backed_up();
    let fingerprint = shop.database.fingerprint();
    let url = shop.url();
    Postgres::start().psql("postgres", &format!("DROP DATABASE {}", shop.database.name));
    let arguments = ["restore", "db", "--from", &url, "--yes", "--trust"];
    bare(&shop).run(&arguments).expect(0);
    assert_eq!(shop.database.fingerprint(), fingerprint);

    // Also where the environment names another one, such as the application's own.
    let other = Postgres::start().database("app");
    let named = bare(&shop)
        .env("DB_NAME", &*other.name)
        .env("RESPALDO__DATA_DIR", "@DIR@/data")
        .env("BACKUP_DIR", "@DIR@/nothing");
    let plan = named.run(&["restore", "db", "--from", &url, "--trust", "--dry-run"]).expect(0);
    assert!(plan.stderr.contains(&format!("into database '{}'", shop.database.name)), "{plan:?}");
}

#[test]
fn a_known_key_needs_no_trust_and_may_be_told_by_the_config() {
    let shop = Shop::backed_up();
    let url = shop.url();
    restore(&shop.respaldo, "shop", &shop.target("shop"), &["--from", &url, "--yes"]).expect(0);
    let signature: serde_json::Value =
        serde_json::from_slice(&fs::read(shop.stored("shop").path("manifest.sig")).unwrap())
            .unwrap();
    let key = signature["public_key"].as_str().unwrap();
    let config = |key: &str| {
        format!(
            "trusted_keys = [\"{key}\"]\n{HEAD}{LOCAL}\
             [jobs.shop]\nsource = {{ sqlite = \"/nowhere\" }}\n"
        )
    };
    for (key, code) in [(key, 0), ("c29tZWJvZHkgZWxzZSdzIGtleSBvZiAzMiBieXRlcy4=", 1)] {
        let other = Respaldo::new(&config(key));
        let target = other.path("new.db");
        let target = target.to_str().unwrap();
        restore(&other, "shop", target, &["--from", &url, "--yes"]).expect(code);
        assert_eq!(Path::new(target).exists(), code == 0);
    }
}

#[test]
fn a_manifest_that_was_changed_is_refused() {
    let shop = Shop::backed_up();
    for job in JOBS {
        let stored = shop.stored(job);
        let text = fs::read_to_string(stored.path("manifest.json")).unwrap();
        let changed = text.replacen("\"kind\": \"full\"", "\"kind\":  \"full\"", 1);
        assert_ne!(changed, text);
        fs::write(stored.path("manifest.json"), changed).unwrap();
        let said = shop.refused(job, 1, &["--destination", "local", "--yes"]).stderr;
        assert!(said.contains("not the one that was signed"), "{said}");
        let said = shop.respaldo.run(&["verify", job, "--destination", "local"]).expect(1).stderr;
        assert!(said.contains("not the one that was signed"), "{said}");

        fs::remove_file(stored.path("manifest.sig")).unwrap();
        let said = shop.refused(job, 1, &["--destination", "local", "--yes"]).stderr;
        assert!(said.contains("is not signed"), "{said}");
        shop.respaldo.run(&["verify", job, "--destination", "local"]).expect(1);
        shop.restore(job, &["--destination", "local", "--yes", "--trust"]).expect(0);
    }
    let kept = Postgres::start()
        .psql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'shop%__before_%'");
    for name in kept.lines().filter(|name| name.starts_with(&shop.database.name)) {
        drop(Postgres::start().existing(name));
    }
}

#[test]
fn nothing_happens_without_consent() {
    let shop = Shop::backed_up();
    for job in JOBS {
        let plan = shop.refused(job, 0, &["--dry-run"]);
        assert!(plan.stderr.contains(&shop.target(job)), "{}", plan.stderr);
        assert!(plan.stderr.contains("signature: good, by a known key"), "{}", plan.stderr);
        assert_eq!(plan.stdout, "");
        shop.refused(job, 0, &["--dry-run", "--yes"]);
        let said = shop.refused(job, 2, &[]).stderr;
        assert!(said.contains("nobody is there to confirm") && said.contains("--yes"), "{said}");
    }
}

#[test]
fn what_is_not_there_is_bad_usage() {
    let shop = Shop::backed_up();
    for (job, more, part) in [
        ("db", &["20200101T000000Z"][..], "no backup 20200101T000000Z"),
        ("db", &["yesterday"], "yesterday"),
        ("nothing", &[], "there is no job 'nothing'"),
        ("db", &["--destination", "nowhere"], "no destination 'nowhere'"),
        ("shop", &["--from", "file:///nowhere/at/all"], "/nowhere/at/all"),
        ("shop", &["--from", "ftp://x/y"], "ftp"),
        ("shop", &["--from", "file:///tmp", "--destination", "local"], "cannot be used with"),
    ] {
        let code = if part == "/nowhere/at/all" { 1 } else { 2 };
        let said = shop.restore(job, &[more, &["--yes"]].concat()).expect(code).stderr;
        assert!(said.contains(part), "{more:?}: {said}");
    }
    for command in ["verify", "show"] {
        shop.respaldo.run(&[command, "db", "20200101T000000Z"]).expect(2);
    }
}

#[test]
fn what_lies_in_the_way_is_not_touched() {
    let shop = Shop::backed_up();
    let (file, folder) = (shop.target("shop"), PathBuf::from(shop.target("media")));
    for ending in ["", "-wal", "-journal"] {
        let way = format!("{file}{ending}");
        fs::write(&way, "precious").unwrap();
        let said = shop.restore("shop", &["--yes"]).expect(2).stderr;
        assert!(said.contains("exists") && said.contains("move it away"), "{said}");
        assert_eq!(fs::read_to_string(&way).unwrap(), "precious");
        fs::remove_file(&way).unwrap();
    }
    std::os::unix::fs::symlink(shop.respaldo.path("nowhere"), &file).unwrap();
    shop.restore("shop", &["--yes"]).expect(2);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("precious"), "precious").unwrap();
    let said = shop.restore("media", &["--yes"]).expect(2).stderr;
    assert!(said.contains("not empty"), "{said}");
    let names = fs::read_dir(&folder).unwrap().count();
    assert_eq!(
        (names, fs::read_to_string(folder.join("precious")).unwrap()),
        (1, "precious".into())
    );
}

#[test]
fn one_flipped_byte_is_found_by_verify_and_by_restore() {
    let shop = Shop::backed_up();
    for job in JOBS {
        shop.respaldo.run(&["verify", job]).expect(0);
        let stored = shop.stored(job);
        let artifact = stored.artifact(0);
        Stored::flip(&artifact);
        let name = artifact.file_name().unwrap().to_str().unwrap();
        let verified = shop.respaldo.run(&["verify", job, "--json"]).expect(1);
        let failure = format!("{name} on 'local'");
        assert!(verified.stderr.contains(&failure), "{}", verified.stderr);
        let reports = verified.json();
        assert_eq!(
            (&reports[0]["destination"], &reports[0]["ok"]),
            (&"local".into(), &false.into())
        );
        assert_eq!(
            (&reports[1]["destination"], &reports[1]["ok"]),
            (&"offsite".into(), &true.into())
        );
        assert!(reports[0]["failures"][0].as_str().unwrap().contains(name));
        let said = shop.refused(job, 1, &["--destination", "local", "--yes"]).stderr;
        assert!(said.contains(&failure), "{said}");
        // The other copy is whole.
        shop.respaldo.run(&["verify", job, "--destination", "offsite"]).expect(0);
    }
}

#[test]
fn without_a_codec_the_digests_alone_find_a_flipped_byte() {
    let database = Postgres::start().database("plain");
    database.psql("CREATE TABLE t AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)");
    for compression in ["none", "gzip"] {
        let respaldo = Respaldo::new(&format!(
            "{HEAD}{LOCAL}[jobs.db]\ncompression = \"{compression}\"\n{}\
             [jobs.media]\ncompression = \"{compression}\"\nsource = {{ files = \"@DIR@/m\" }}\n",
            postgres(&database, ", format = \"plain\"")
        ));
        respaldo.write("m/a", &"x".repeat(1_000_000));
        respaldo.run(&["backup", "--all"]).expect(0);
        for (job, target) in [("db", database.name.clone()), ("media", "new".into())] {
            respaldo.run(&["verify", job]).expect(0);
            Stored::flip(&Stored::newest(&respaldo.path("backups"), job).artifact(0));
            let said = respaldo.run(&["verify", job]).expect(1).stderr;
            assert!(compression == "gzip" || said.contains("is damaged"), "{said}");
            restore(&respaldo, job, &target, &["--yes"]).expect(1);
        }
        assert_eq!(database.psql("SELECT count(*) FROM t"), "1000");
        let made = Postgres::start().psql(
            "postgres",
            &format!("SELECT count(*) FROM pg_database WHERE datname ^@ '{}'", database.name),
        );
        assert_eq!((made.as_str(), respaldo.path("new").exists()), ("1", false));
    }
}

#[test]
fn what_was_cut_short_or_is_gone_is_found() {
    let shop = Shop::backed_up();
    for job in JOBS {
        let stored = shop.stored(job);
        let artifact = stored.artifact(0);
        let whole = fs::read(&artifact).unwrap();
        for length in [whole.len() - 1, whole.len() / 2, 0] {
            fs::write(&artifact, &whole[..length]).unwrap();
            shop.respaldo.run(&["verify", job, "--destination", "local"]).expect(1);
            shop.refused(job, 1, &["--destination", "local", "--yes"]);
        }
        fs::write(&artifact, [&whole[..], b"x"].concat()).unwrap();
        shop.respaldo.run(&["verify", job, "--destination", "local"]).expect(1);
        shop.refused(job, 1, &["--destination", "local", "--yes"]);
        fs::remove_file(&artifact).unwrap();
        let said = shop.respaldo.run(&["verify", job, "--destination", "local"]).expect(1).stderr;
        assert!(said.contains(artifact.file_name().unwrap().to_str().unwrap()), "{said}");
        shop.refused(job, 1, &["--destination", "local", "--yes"]);
        fs::write(&artifact, &whole).unwrap();
        shop.respaldo.run(&["verify", job, "--destination", "local"]).expect(0);

        fs::remove_file(stored.path("SHA256SUMS")).unwrap();
        let said = shop.respaldo.run(&["verify", job, "--destination", "local"]).expect(1).stderr;
        assert!(said.contains("SHA256SUMS is missing"), "{said}");
        let manifest = fs::read(stored.path("manifest.json")).unwrap();
        fs::remove_file(stored.path("manifest.json")).unwrap();
        shop.refused(job, 2, &["--destination", "local", "--yes"]);
        shop.respaldo.run(&["verify", job, "--destination", "local"]).expect(2);
        fs::write(stored.path("manifest.json"), manifest).unwrap();
    }
}

#[test]
fn a_short_archive_with_right_digests_is_found_by_the_engines_own_reader() {
    let shop = Shop::backed_up();
    for job in JOBS {
        let stored = shop.stored(job);
        let plain =
            Command::new("zstd").arg("-dc").arg(stored.artifact(0)).output().unwrap().stdout;
        // In the midst of a row, of a page and of a member.
        stored.forge(0, &plain[..plain.len() * 2 / 3 + 7]);
        let verified = shop.respaldo.run(&["verify", job, "--destination", "local", "--json"]);
        let report = verified.expect(1).json();
        let failures: Vec<&str> =
            report[0]["failures"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
        let name = stored.artifact(0).file_name().unwrap().to_str().unwrap().to_owned();
        assert!(
            failures.iter().any(|f| f.contains(&name) && !f.contains("digest")),
            "{failures:?}"
        );
        shop.refused(job, 1, &["--destination", "local", "--yes", "--trust"]);
        // The same forgery of the whole passes, but for the signature: the reader it was that failed.
        stored.forge(0, &plain);
        let verified = shop.respaldo.run(&["verify", job, "--destination", "local", "--json"]);
        assert_eq!(verified.expect(1).json()[0]["failures"].as_array().unwrap().len(), 1);
    }
}
