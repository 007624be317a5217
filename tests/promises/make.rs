//! The make targets that people know from their own repositories: they back up, list, verify and put back,
//! by the program itself or through Docker Compose.

use std::path::Path;
use std::process::Command;

use crate::support::config::{HEAD, LOCAL, postgres};
use crate::support::postgres::Postgres;
use crate::support::program::{Output, Respaldo};
use crate::support::tool;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn make(words: &[&str]) -> Output {
    let output = Command::new("make")
        .args(["--no-print-directory", "-C", ROOT])
        .args(words)
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Output {
        code: output.status.code().unwrap(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

#[test]
fn the_targets_back_up_list_verify_and_put_back() {
    let database = Postgres::start().database("make");
    database.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 100) n");
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.db]\nkeep = {{ local = {{}} }}\n{}",
        postgres(&database, "")
    ));
    let before = database.fingerprint();
    let dump = respaldo.path("old/make_20251124_020000.sql");
    std::fs::create_dir(dump.parent().unwrap()).unwrap();
    tool(database.client("pg_dump").arg(format!("--file={}", dump.display())));
    tool(Command::new("gzip").arg(&dump));
    let dump = format!("BACKUP_FILE={}.gz", dump.display());

    let config = respaldo.path("respaldo.toml");
    let program =
        format!("RESPALDO={} --config {}", env!("CARGO_BIN_EXE_respaldo"), config.display());
    let with = |words: &[&str]| make(&[words, &[&program]].concat());
    with(&["backup"]).expect(0);
    let list = with(&["backup-list"]).expect(0).stdout;
    let id =
        respaldo.run(&["list", "--json"]).expect(0).json()[0]["id"].as_str().unwrap().to_owned();
    assert!(list.contains(&id), "{list}");
    with(&["backup-verify", "JOB=db"]).expect(0);
    with(&["backup-verify", &dump]).expect(0);
    for named in [vec!["JOB=db"], vec![&dump], vec!["JOB=db", &*format!("ID={id}")]] {
        database.psql("DELETE FROM t WHERE n > 5");
        assert_ne!(database.fingerprint(), before);
        with(&[&["backup-restore", "YES=1"], &*named].concat()).expect(0);
        assert_eq!(database.fingerprint(), before, "{named:?}");
    }
    // What is wrong with the program's run is make's failure too.
    std::fs::write(respaldo.path("old/bad.sql.gz"), "x").unwrap();
    let bad = format!("BACKUP_FILE={}", respaldo.path("old/bad.sql.gz").display());
    with(&["backup-verify", &bad]).expect(2);
    for target in ["backup-verify", "backup-restore"] {
        let said = with(&[target]).expect(2).stderr;
        assert!(said.contains("BACKUP_FILE=") && said.contains("JOB="), "{said}");
    }
}

#[test]
fn without_a_program_the_targets_go_through_compose() {
    let dump = Path::new(ROOT).join("README.md").display().to_string();
    let compose = "docker compose -f docker-compose.backup.yml";
    let there = format!("BACKUP_FILE={dump}");
    let cases: [(&[&str], String); 7] = [
        (&["backup"], format!("{compose} run --rm respaldo backup --all")),
        (&["backup-service"], format!("{compose} up --detach respaldo")),
        (&["backup-list"], format!("{compose} run --rm respaldo restore --list")),
        (&["backup-verify", "JOB=db"], format!("{compose} run --rm respaldo verify db latest")),
        (
            &["backup-verify", &there],
            format!(
                "{compose} run --rm --volume '{ROOT}:/dumps:ro' respaldo restore --file \
                 '/dumps/README.md' --verify-only"
            ),
        ),
        // In the container, and not here.
        (
            &["backup-restore", "JOB=db", "BACKUP_FILE=/backups/shop.sql.gz"],
            format!("{compose} run --rm respaldo restore db --file '/backups/shop.sql.gz'"),
        ),
        (
            &["backup-restore", "JOB=db", "ID=20251124T060000Z", "YES=1", "COMPOSE=docker-compose"],
            "docker-compose -f docker-compose.backup.yml run --rm respaldo restore db \
             20251124T060000Z --yes"
                .to_owned(),
        ),
    ];
    for (words, wanted) in cases {
        let shown = make(&[&["--dry-run"], words].concat()).expect(0).stdout;
        let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(shown, wanted, "{words:?}");
    }
    // Each of them is in the list that make prints of itself.
    let listed = make(&["help"]).expect(0).stdout;
    for target in ["backup", "backup-service", "backup-list", "backup-verify", "backup-restore"] {
        assert!(
            listed.lines().any(|line| line.starts_with(&format!("make {target} "))),
            "{listed}"
        );
    }
}
