//! A migration in a pipeline goes on only behind a backup that is everywhere, pinned and found again
//! by its label: by the very lines of docs/migrations.md.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::config::{HEAD, LOCAL, postgres, s3};
use crate::support::postgres::{Database, Postgres};
use crate::support::program::Respaldo;
use crate::support::s3::{Act, Rule, S3};
use crate::support::scene::listed;

/// The commands of docs/migrations.md, each on its line.
fn documented() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migrations.md");
    let text = fs::read_to_string(path).unwrap();
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.flat_map(str::lines).map(str::to_owned).collect()
}

/// A database, two destinations, and a migration that changes every row.
struct Pipeline {
    respaldo: Respaldo,
    database: Database,
    s3: S3,
}

impl Pipeline {
    fn new(name: &str) -> Self {
        let (database, s3) = (Postgres::start().database(name), S3::start());
        database
            .psql("CREATE TABLE t AS SELECT n, md5(n::text) AS m FROM generate_series(1, 100) n");
        let respaldo = Respaldo::new(&format!(
            "{HEAD}{LOCAL}{}[jobs.db]\nretries = 0\nkeep = {{ local = {{ last = 1 }}, offsite = {{ last = 1 }} }}\n{}",
            self::s3("offsite", &s3, "x"),
            postgres(&database, "")
        ));
        respaldo.write_program(
            "migrate",
            &format!(
                "#!/bin/sh\nexec {}/psql -Xqc 'UPDATE t SET m = md5(m)'\n",
                database.bin().display()
            ),
        );
        Self { respaldo, database, s3 }
    }

    /// Runs a line as a pipeline does, and gives its exit code and what it said.
    fn run(&self, line: &str) -> (i32, String) {
        let program = Path::new(env!("CARGO_BIN_EXE_respaldo")).parent().unwrap();
        let client = self.database.client("psql");
        let environment = client.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let shell = Command::new("bash")
            .args(["-c", line])
            .env_clear()
            .envs(environment)
            .env("PATH", format!("{}:/usr/bin:/bin", program.display()))
            .env("RESPALDO_CONFIG", self.respaldo.path("respaldo.toml"))
            .current_dir(self.respaldo.folder())
            .output()
            .unwrap();
        let said = [shell.stdout, shell.stderr].concat();
        (shell.status.code().unwrap(), String::from_utf8(said).unwrap())
    }

    fn is_migrated(&self) -> bool {
        self.database.psql("SELECT m <> md5('1') FROM t WHERE n = 1") == "t"
    }
}

#[test]
fn a_migration_that_was_wrong_is_taken_back_by_its_label() {
    let pipeline = Pipeline::new("migrated");
    let lines = documented();
    let before = pipeline.database.fingerprint();
    let (code, said) = pipeline.run(&lines[0]);
    assert_eq!((code, pipeline.is_migrated()), (0, true), "{said}");
    let backup = listed(&pipeline.respaldo, "db").pop_first().unwrap();
    assert_eq!(backup.1.len(), 2, "{backup:?}");

    // Newer ones come, also one that was asked for by another word; retention keeps one, and what is pinned.
    for more in [&[][..], &["--label", "pre-migration 2"], &[]] {
        pipeline.respaldo.run(&[&["backup", "db"], more].concat()).expect(0);
    }
    let list = pipeline.respaldo.run(&["list", "db", "--json"]).expect(0).json();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 2, "{list:#?}");
    assert_eq!(
        (&list[1]["id"], &list[1]["label"]),
        (&backup.0.clone().into(), &"pre-migration".into())
    );
    let held = list[1]["destinations"].as_array().unwrap();
    assert!(held.iter().all(|held| held["pinned"] == true), "{held:#?}");

    for line in lines.iter().filter(|line| line.starts_with("respaldo list")) {
        let (code, said) = pipeline.run(line);
        assert!(code == 0 && said.contains("pre-migration"), "{said}");
    }
    let (code, said) = pipeline.run("respaldo verify db --label pre-migration --json");
    assert!(code == 0 && said.contains(&backup.0), "{said}");
    let back: Vec<&String> =
        lines.iter().filter(|line| line.starts_with("respaldo restore")).collect();
    assert_eq!(back.len(), 2);
    let (code, said) = pipeline.run(back[0]);
    assert!(code == 0 && said.contains(&backup.0) && pipeline.is_migrated(), "{said}");
    let (code, said) = pipeline.run(&format!("{} --yes", back[1]));
    assert_eq!(code, 0, "{said}");
    assert_eq!(pipeline.database.fingerprint(), before);

    let url = format!("file://{}", pipeline.respaldo.path("backups").display());
    let (code, said) =
        pipeline.run(&format!("respaldo restore db --label pre-migration --from {url} --dry-run"));
    assert!(code == 0 && said.contains(&backup.0), "{said}");
    let unpin = lines.iter().find(|line| line.starts_with("respaldo unpin")).unwrap();
    let (code, said) = pipeline.run(&unpin.replace("20251124T020000Z", &backup.0));
    assert_eq!(code, 0, "{said}");
    pipeline.respaldo.run(&["prune", "db"]).expect(0);
    let (code, said) = pipeline.run(back[1]);
    assert!(code == 2 && said.contains("no backup labelled 'pre-migration'"), "{code} {said}");
    let (code, said) =
        pipeline.run(&format!("respaldo restore db {} --label pre-migration", backup.0));
    assert!(code == 2 && said.contains("cannot be used with"), "{code} {said}");
}

#[test]
fn nothing_is_migrated_that_has_no_backup_everywhere() {
    let pipeline = Pipeline::new("not_migrated");
    let lines = documented();
    pipeline.s3.faults.set(Rule::on("PUT", ""), Act::Status(403));
    let (code, said) = pipeline.run(&lines[0]);
    assert_eq!((code, pipeline.is_migrated()), (3, false), "{said}");
    // A store that takes the backup and not its pin.
    pipeline.s3.faults.clear();
    pipeline.s3.faults.set(Rule::on("PUT", "marks/pin.json"), Act::Status(403));
    let (code, said) = pipeline.run(&lines[0]);
    assert_eq!((code, pipeline.is_migrated()), (3, false), "{said}");
    assert!(said.contains("offsite stored") && said.contains("offsite is not pinned"), "{said}");
    pipeline.s3.faults.clear();
    let (code, said) = pipeline.run(&lines[0].replace("backup db", "backup dp"));
    assert_eq!((code, pipeline.is_migrated()), (2, false), "{said}");
    pipeline.database.psql("REVOKE ALL ON t FROM postgres; ALTER TABLE t RENAME TO u");
    let wrong =
        lines[0].replace("respaldo ", "RESPALDO__JOBS__DB__SOURCE__PASSWORD=wrong respaldo ");
    let (code, said) = pipeline.run(&wrong);
    assert_eq!(code, 1, "{said}");
    pipeline.database.psql("ALTER TABLE u RENAME TO t");
    assert!(!pipeline.is_migrated());
    // Who says that one copy is enough goes on with one.
    pipeline.s3.faults.set(Rule::on("PUT", ""), Act::Status(403));
    let (code, said) = pipeline.run(&lines[1]);
    assert_eq!((code, pipeline.is_migrated()), (0, true), "{said}");
}

/// What the documents' compose file and workflow say is the same line.
#[test]
fn the_examples_run_the_same_command() {
    let pipeline = Pipeline::new("examples");
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migrations.md"));
    let text = text.unwrap();
    let compose = text.lines().find_map(|line| line.trim().strip_prefix("command: [\"backup\""));
    let words: Vec<String> =
        serde_json::from_str(&format!("[\"backup\"{}", compose.unwrap())).unwrap();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    pipeline.respaldo.run(&words).expect(0);
    let workflow = text.lines().find(|line| line.contains("github.sha")).unwrap();
    let (code, said) = pipeline.run(&workflow.replace("${{ github.sha }}", "0a1b2c"));
    assert_eq!(code, 0, "{said}");
    let (code, said) = pipeline.run("respaldo restore db --label pre-migration-0a1b2c --dry-run");
    assert_eq!(code, 0, "{said}");
}
