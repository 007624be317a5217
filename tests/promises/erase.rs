//! Somebody erased is gone from every backup on every destination, the rest of each restores, and no
//! restore brings them back; whatever moment the program dies in.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::config::{HEAD, LOCAL, postgres};
use crate::support::postgres::{Database, Postgres};
use crate::support::program::{Output, Respaldo};
use crate::support::s3::{Act, Rule, S3};
use crate::support::scene::{
    assert_listed_verify, backups_in, last_run, local_root, offsite, offsite_root,
};
use crate::support::stored::Stored;
use crate::support::tool;

const TENANTS: &str = "CREATE SCHEMA tenant_a; CREATE SCHEMA tenant_b;
    CREATE TABLE tenant_a.people (name text PRIMARY KEY); INSERT INTO tenant_a.people VALUES ('ana');
    CREATE TABLE tenant_b.people (name text PRIMARY KEY); INSERT INTO tenant_b.people VALUES ('bea');
    CREATE TABLE public.orders (id int PRIMARY KEY, tenant_id text);
    INSERT INTO public.orders SELECT n, (n % 10)::text FROM generate_series(1, 100) n;";
const DELETE: &str = "DELETE FROM public.orders WHERE tenant_id = '7'";

/// Two backups, of which the first is pinned, in a folder and on S3.
struct Tenants {
    database: Database,
    respaldo: Respaldo,
    s3: S3,
}

impl Tenants {
    fn new() -> Self {
        Self::with("")
    }

    /// `more` is added to the local destination.
    fn with(more: &str) -> Self {
        let database = Postgres::start().database("erase");
        database.psql(TENANTS);
        let s3 = S3::start();
        let respaldo = Respaldo::new("");
        let tenants = Self { database, respaldo, s3 };
        tenants.configure(more, ", schemas = \"each\", fingerprint = \"counts\"");
        tenants.respaldo.run(&["backup", "db", "--pin"]).expect(0);
        tenants.respaldo.run(&["backup", "db"]).expect(0);
        tenants
    }

    fn configure(&self, more: &str, source: &str) {
        let source = postgres(&self.database, source);
        let job = format!("[jobs.db]\nschedule = \"@yearly\"\nretries = 0\n{source}");
        let places = format!("{LOCAL}{more}{}", offsite(&self.s3));
        self.respaldo.write_config(&format!("stall = \"5s\"\n{HEAD}{places}{job}"));
    }

    fn erase(&self, more: &[&str]) -> Output {
        self.respaldo.run(&[&["erase", "db"], more].concat())
    }

    fn schema(&self, more: &[&str]) -> Output {
        self.erase(&[&["--schema", "tenant_a", "--yes"], more].concat())
    }

    fn all(&self) -> Vec<Stored> {
        let roots = [local_root(&self.respaldo), offsite_root(&self.s3)];
        roots.iter().flat_map(|root| Stored::all(root, "db")).collect()
    }

    fn files(&self) -> BTreeSet<String> {
        let roots = [local_root(&self.respaldo), offsite_root(&self.s3)];
        let all = roots.iter().flat_map(|root| backups_in(root, "db").into_values());
        all.flatten().filter(|name| name.contains("tenant_a")).collect()
    }

    /// Nothing of it is left, and what is left is whole for respaldo and for stock tools.
    #[track_caller]
    fn assert_erased(&self) {
        assert_eq!(self.files(), BTreeSet::new());
        for backup in self.all() {
            let manifest = backup.manifest().to_string();
            assert!(!manifest.contains("tenant_a"), "{manifest}");
            assert!(manifest.contains("tenant_b"), "{manifest}");
            let sums = ["--quiet", "-c", "SHA256SUMS"];
            tool(Command::new("sha256sum").args(sums).current_dir(&backup.folder));
            let guide = fs::read_to_string(backup.path("RESTORE.md")).unwrap();
            assert!(!guide.contains("tenant_a") && guide.contains("tenant_b"), "{guide}");
            let signature = fs::read_to_string(backup.path("manifest.sig")).unwrap();
            assert_eq!(signature.lines().count(), 1);
            let tombstone = fs::read(backup.path("marks/tombstone.json")).unwrap();
            let tombstone: Value = serde_json::from_slice(&tombstone).unwrap();
            assert_eq!(tombstone["erased"].as_array().unwrap().len(), 1, "{tombstone:#}");
            let taken = &tombstone["erased"][0];
            assert_eq!(taken["schema"], "tenant_a");
            let digest = taken["artifacts"][0]["stored_sha256"].as_str().unwrap();
            assert!(digest.len() == 64 && taken["at"].is_string() && taken["host"].is_string());
        }
        assert_listed_verify(&self.respaldo, "db");
        let list = self.respaldo.run(&["list", "db", "--json"]).expect(0).stdout;
        assert!(!list.contains("tenant_a"), "{list}");
    }

    /// Restores into a database of its own.
    fn restore(&self, name: &str, more: &[&str]) -> (Output, Database) {
        let name = format!("{}_{name}", self.database.name);
        let base = ["restore", "db", "--yes", "--database", &name];
        let done = self.respaldo.run(&[&base[..], more].concat());
        (done, Postgres::start().existing(&name))
    }
}

/// What is in it: the schemas, and the number of orders.
fn held(database: &Database) -> String {
    let sql =
        "SELECT string_agg(nspname, ' ' ORDER BY nspname) || ' ' || (SELECT count(*) FROM orders)
        FROM pg_namespace WHERE nspname LIKE 'tenant%'";
    database.psql(sql).trim().to_owned()
}

#[test]
fn a_schema_goes_from_every_backup_and_the_others_restore() {
    let tenants = Tenants::new();
    assert_eq!(tenants.files().len(), 1);
    let before = tenants.all().iter().map(Stored::manifest).collect::<Vec<_>>();

    // Asked, and only looked at.
    let said = tenants.erase(&["--schema", "tenant_a"]).expect(2).stderr;
    assert!(
        said.contains("nobody is there to confirm") && said.contains("would be erased"),
        "{said}"
    );
    let planned = tenants.schema(&["--dry-run", "--json"]).expect(0).json();
    assert_eq!((planned["copies"].as_array().unwrap().len(), &planned["run"]), (4, &Value::Null));
    assert_eq!(before, tenants.all().iter().map(Stored::manifest).collect::<Vec<_>>());
    let said = tenants.erase(&["--schema", "tenant_x", "--yes"]).expect(2).stderr;
    assert!(said.contains("no backup of 'db' holds a schema 'tenant_x'"), "{said}");

    let done = tenants.schema(&["--note", "asked to, 12 May", "--json"]).expect(0);
    let erased = done.json();
    let copies = erased["copies"].as_array().unwrap();
    assert!(copies.len() == 4 && copies.iter().all(|copy| copy["state"] == "erased"), "{erased:#}");
    assert!(done.stderr.contains("it is pinned, and stays so"), "{}", done.stderr);
    for part in ["keeps versions", "the definitions of its tables", "logs of runs"] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
    tenants.assert_erased();
    let pins = tenants.all().iter().filter(|backup| backup.path("marks/pin.json").exists()).count();
    assert_eq!(pins, 2);
    let run = last_run(&tenants.respaldo, "db");
    assert_eq!((&run["kind"], &run["state"]), (&json!("erase"), &json!("succeeded")));
    let log = fs::read_to_string(run["log"].as_str().unwrap()).unwrap();
    assert!(log.contains("schema 'tenant_a' erased from"), "{log}");
    let list = tenants.erase(&["--list", "--json"]).expect(0).json();
    assert_eq!(
        (&list[0]["schema"], &list[0]["note"]),
        (&json!("tenant_a"), &json!("asked to, 12 May"))
    );
    assert!(tenants.erase(&["--list"]).expect(0).stdout.contains("schema 'tenant_a'"));

    // Not by a restore, and not from another installation either, which trusts nobody yet.
    let (done, restored) = tenants.restore("one", &[]);
    assert!(done.expect(0).stderr.contains("1 erasures are reapplied"));
    assert_eq!(held(&restored), "tenant_b 100");
    let name = format!("{}_two", tenants.database.name);
    let other =
        Respaldo::new(&format!("{HEAD}{LOCAL}[jobs.db]\n{}", postgres(&tenants.database, "")));
    let from = format!("file://{}", local_root(&tenants.respaldo).display());
    let base = ["restore", "db", "--from", &from, "--yes", "--database", &name];
    other.run(&base).expect(1);
    other.run(&[&base[..], &["--trust"]].concat()).expect(0);
    assert_eq!(held(&Postgres::start().existing(&name)), "tenant_b 100");

    // A schema of that name that is made later is somebody else's.
    tenants.respaldo.run(&["backup", "db"]).expect(0);
    let (done, restored) = tenants.restore("three", &[]);
    assert!(!done.expect(0).stderr.contains("reapplied"));
    assert_eq!(held(&restored), "tenant_a tenant_b 100");
}

#[test]
fn a_kill_at_any_step_leaves_whole_backups_and_is_made_up_for() {
    for (method, part, skip) in [
        ("PUT", "erasures.json", 0),
        ("PUT", "tombstone.json", 0),
        ("PUT", "manifest.sig", 0),
        ("PUT", "manifest.json", 1),
        ("PUT", "RESTORE.md", 0),
        ("PUT", "SHA256SUMS", 0),
        ("PUT", "manifest.sig", 1),
        ("POST", "delete", 0),
        ("POST", "delete", 1),
        ("PUT", "erasures.json", 1),
    ] {
        let tenants = Tenants::new();
        let before = tenants.s3.faults.count(method, part);
        tenants.s3.faults.set(Rule::on(method, part).skip(skip), Act::Hang);
        let running = tenants.respaldo.watch(&["erase", "db", "--schema", "tenant_a", "--yes"]);
        tenants.s3.faults.wait_for(method, part, before + skip + 1);
        running.kill9();
        tenants.s3.faults.clear();
        tenants.s3.wait_for_the_dead();
        for backup in tenants.all() {
            for artifact in backup.manifest()["artifacts"].as_array().unwrap() {
                let name = artifact["name"].as_str().unwrap();
                assert!(backup.path(name).exists(), "{method} {part}: {name} is listed and gone");
            }
        }
        // Every manifest is signed, and every file of it is right.
        assert_listed_verify(&tenants.respaldo, "db");
        let (done, restored) = tenants.restore("killed", &["--destination", "offsite"]);
        done.expect(0);
        assert_eq!(held(&restored), "tenant_b 100", "{method} {part}");
        // By the same command once more, or by a sync.
        if skip == 0 {
            tenants.schema(&[]).expect(0);
        } else {
            tenants.respaldo.run(&["sync", "db"]).expect(0);
        }
        tenants.assert_erased();
    }
}

#[test]
fn what_was_down_catches_up_and_brings_nothing_back() {
    let tenants = Tenants::new();
    tenants.s3.faults.set(Rule::any(), Act::Status(403));
    let said = tenants.schema(&[]).expect(3).stderr;
    assert!(said.contains("'offsite' is left out") && said.contains("respaldo sync db"), "{said}");
    assert_eq!(last_run(&tenants.respaldo, "db")["state"], "partial");
    tenants.s3.faults.clear();
    assert_eq!(tenants.files().len(), 1, "it is still on the other one");

    // The memory is lost, and made anew from both.
    for file in ["catalog.sqlite3", "catalog.sqlite3-wal", "catalog.sqlite3-shm"] {
        drop(fs::remove_file(tenants.respaldo.path("data").join(file)));
    }
    tenants.respaldo.run(&["catalog", "rebuild"]).expect(0);
    let show = |id: &str| tenants.respaldo.run(&["show", "db", id, "--json"]).expect(0).stdout;
    let local = Stored::all(&local_root(&tenants.respaldo), "db");
    assert!(!show(&local[0].id()).contains("tenant_a"));
    tenants.respaldo.run(&["prune", "db", "--adopt"]).expect(0);

    // A backup that is gone here is not brought back as it was.
    fs::remove_dir_all(&local[1].folder).unwrap();
    tenants.respaldo.run(&["sync", "db"]).expect(0);
    assert_eq!(tenants.all().len(), 4);
    tenants.assert_erased();
    let idle = tenants.respaldo.run(&["sync", "db"]).expect(0);
    assert!(idle.stderr.contains("nothing is missing"), "{}", idle.stderr);
    assert!(!idle.stderr.contains("erased"), "{}", idle.stderr);
}

#[test]
fn what_can_not_be_erased_is_said() {
    let tenants = Tenants::with("append_only = true\n");
    let (local, remote) = (local_root(&tenants.respaldo), offsite_root(&tenants.s3));
    // One that nobody here has signed.
    let forged = Stored::all(&remote, "db").remove(0).copy_as("20200101T000000Z");
    // One that is a whole dump.
    tenants.configure("append_only = true\n", ", fingerprint = \"counts\"");
    tenants.respaldo.run(&["backup", "db"]).expect(0);
    let whole = Stored::newest(&local, "db");

    let said = tenants.schema(&["--json"]).expect(3);
    let found = said.json();
    let state = |id: &str, place: &str| {
        let mut copies = found["copies"].as_array().unwrap().iter();
        let copy = copies.find(|copy| copy["id"] == id && copy["destination"] == place);
        copy.map(|copy| (copy["state"].clone(), copy["error"].to_string()))
    };
    let first = Stored::all(&local, "db").remove(0);
    let (left, why) = state(&first.id(), "local").unwrap();
    assert!(left == "left" && why.contains("append_only"), "{left} {why}");
    assert_eq!(state(&first.id(), "offsite").unwrap().0, "erased");
    let (left, why) = state(&forged.id(), "offsite").unwrap();
    assert!(left == "left" && why.contains("signed"), "{left} {why}");
    assert_eq!(state(&whole.id(), "local"), None);
    let remains = found["remains"].as_array().unwrap();
    let of_whole = remains.iter().filter(|remains| remains["id"] == whole.id().as_str());
    let of_whole: Vec<&Value> = of_whole.collect();
    assert_eq!(of_whole.len(), 2, "{remains:#?}");
    assert!(of_whole[0]["what"].as_str().unwrap().contains("inside a whole dump"));
    assert!(said.stderr.contains("inside a whole dump"), "{}", said.stderr);
    assert!(first.manifest().to_string().contains("tenant_a"));

    // And what is inside a whole dump is dropped by a restore.
    let (done, restored) = tenants.restore("whole", &[&whole.id()]);
    done.expect(0);
    assert_eq!(held(&restored), "tenant_b 100");
}

#[test]
fn rows_are_deleted_again_by_every_restore() {
    let tenants = Tenants::new();
    let said = tenants.erase(&["--sql", DELETE, "--note", "asked to", "--yes"]).expect(0).stderr;
    assert!(said.contains("a restore removes them"), "{said}");
    let log = last_run(&tenants.respaldo, "db")["log"].as_str().unwrap().to_owned();
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("statement") && !log.contains("tenant_id"), "{log}");
    for root in [local_root(&tenants.respaldo), offsite_root(&tenants.s3)] {
        let ledger = fs::read_to_string(root.join("db/erasures.json")).unwrap();
        assert!(ledger.contains(DELETE) && ledger.lines().count() == 2, "{ledger}");
    }
    let (done, restored) = tenants.restore("rows", &[]);
    let said = done.expect(0).stderr;
    assert!(said.contains("1 erasures are reapplied") && said.contains(DELETE), "{said}");
    assert_eq!(held(&restored), "tenant_a tenant_b 90");
    assert_eq!(restored.psql("SELECT count(*) FROM orders WHERE tenant_id = '7'").trim(), "0");

    // Of one schema alone there is nothing to delete.
    let name = tenants.all()[0].manifest()["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|artifact| artifact["content"]["schema"] == "tenant_b")
        .unwrap()["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let (done, restored) = tenants.restore("part", &["--artifact", &name]);
    done.expect(0);
    assert_eq!(restored.psql("SELECT name FROM tenant_b.people").trim(), "bea");

    // A statement that fails leaves everything as it was.
    tenants.erase(&["--sql", "DELETE FROM public.nowhere", "--yes"]).expect(0);
    let live = tenants.database.fingerprint();
    let failed = tenants.respaldo.run(&["restore", "db", "--yes"]).expect(1).stderr;
    assert!(failed.contains("erase again: DELETE FROM public.nowhere"), "{failed}");
    assert_eq!(tenants.database.fingerprint(), live);
    let names = Postgres::start().psql("postgres", "SELECT datname FROM pg_database");
    let beside = names.lines().filter(|name| name.starts_with(&tenants.database.name));
    assert!(!beside.clone().any(|name| name.contains("__new_")), "{names}");
}

#[test]
fn a_forged_ledger_is_refused() {
    let tenants = Tenants::new();
    tenants.erase(&["--sql", DELETE, "--yes"]).expect(0);
    let path = local_root(&tenants.respaldo).join("db/erasures.json");
    let ledger = fs::read_to_string(&path).unwrap();
    let other =
        Respaldo::new(&format!("{HEAD}{LOCAL}[jobs.db]\n{}", postgres(&tenants.database, "")));
    other.run(&["backup", "db"]).expect(0);
    other.run(&["erase", "db", "--sql", "DROP TABLE public.orders", "--yes"]).expect(0);
    let strange = fs::read_to_string(local_root(&other).join("db/erasures.json")).unwrap();
    let unsigned = ledger.lines().next().unwrap().to_owned();
    for (forged, why) in [
        (ledger.replace("'7'", "'8'"), "not those that were signed"),
        (unsigned, "are not signed"),
        (strange, "a key that is not known here"),
        ("no ledger".to_owned(), "can't be read"),
        (ledger.replacen("\"job\":\"db\"", "\"job\":\"xx\"", 1), "can't be read"),
    ] {
        fs::write(&path, &forged).unwrap();
        let (done, _) = tenants.restore("forged", &["--destination", "local"]);
        let said = done.expect(1).stderr;
        assert!(said.contains(why), "{why}: {said}");
        // It is not overwritten, for somebody may have meant it; the others are served.
        let said =
            tenants.erase(&["--sql", "DELETE FROM public.orders WHERE id = 1", "--yes"]).expect(3);
        assert!(said.stderr.contains("'local' is left out"), "{}", said.stderr);
        assert_eq!(fs::read_to_string(&path).unwrap(), forged);
    }
    // What the catalog knows holds even where the file was taken away, and comes back.
    fs::remove_file(&path).unwrap();
    let (done, restored) = tenants.restore("gone", &["--destination", "local"]);
    done.expect(0);
    assert_eq!(held(&restored), "tenant_a tenant_b 89");
    tenants.respaldo.run(&["sync", "db"]).expect(0);
    assert!(fs::read_to_string(&path).unwrap().contains("'7'"));
}

#[test]
fn an_sqlite_file_is_restored_without_what_was_erased() {
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.shop]\nsource = {{ sqlite = \"@DIR@/shop.db\" }}\nretries = 0\n"
    ));
    let sql = "CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)";
    tool(Command::new("sqlite3").arg(respaldo.path("shop.db")).arg(sql));
    respaldo.run(&["backup", "shop"]).expect(0);
    respaldo.run(&["erase", "shop", "--sql", "DELETE FROM t WHERE a = 1", "--yes"]).expect(0);
    let (good, bad) = (respaldo.path("good.db"), respaldo.path("bad.db"));
    respaldo.run(&["restore", "shop", "--yes", "--to", good.to_str().unwrap()]).expect(0);
    assert_eq!(tool(Command::new("sqlite3").arg(&good).arg("SELECT * FROM t")).trim(), "2");
    respaldo.run(&["erase", "shop", "--sql", "DELETE FROM nowhere", "--yes"]).expect(0);
    respaldo.run(&["restore", "shop", "--yes", "--to", bad.to_str().unwrap()]).expect(1);
    assert!(!bad.exists());
}

#[test]
fn bad_words_are_refused() {
    let tenants = Tenants::new();
    let long = "x".repeat(501);
    for (words, part) in [
        (&[][..], "--schema NAME or --sql"),
        (&["--schema", " ", "--yes"], "--schema is empty"),
        (&["--sql", "", "--yes"], "--sql is empty"),
        (&["--sql", "x", "--schema", "y"], "cannot be used with"),
        (&["--list", "--yes"], "cannot be used with"),
        (&["--sql", "x", "--yes", "--note", &long], "--note is longer"),
    ] {
        let said = tenants.erase(words).expect(2).stderr;
        assert!(said.contains(part), "{words:?}: {said}");
    }
}
