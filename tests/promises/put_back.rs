//! What is restored to where it was: loaded beside what is there, put in its place in a way that no
//! kill leaves between, kept and put back on demand.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use respaldo::source::files::{Files, Unreadable};
use respaldo::source::sqlite::Sqlite;
use respaldo::source::{Kept, Print, Session, Source};
use rustix::process::Signal;

use crate::support::config::{HEAD, LOCAL, text};
use crate::support::disk::Disk;
use crate::support::eventually;
use crate::support::mariadb::{Database, Mariadb, quote};
use crate::support::process;
use crate::support::program::{Output, Respaldo};
use crate::support::stored::Stored;
use crate::support::tree::{as_listed, assert_alike, listing};
use crate::support::{DEADLINE, tool};

/// What puts one thing in the place of another; each is counted by itself.
const RENAMES: [&str; 3] = ["?rename", "?renameat", "renameat2"];
/// And what else changes a file or makes it last.
const MORE: [&str; 4] = ["?link", "linkat", "fsync", "?chmod,fchmodat"];

/// A job `media` of one folder that may lie anywhere.
fn media_of(folders: &str, more: &str) -> Respaldo {
    Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.media]\nretries = 0\ncatch_up = false\n\
         source = {{ files = {folders}{more} }}\n"
    ))
}

fn media() -> Respaldo {
    media_of("\"@DIR@/media\"", "")
}

/// A small tree in which each kind of change can happen.
fn fill(respaldo: &Respaldo) {
    respaldo.write("media/stays", "stays");
    respaldo.write("media/changes", "before");
    respaldo.write("media/goes", "comes back");
    respaldo.write("media/albums/one/a.jpg", "a");
    respaldo.write("media/albums/two/b.jpg", "b");
    respaldo.write("media/odd \n name", "odd");
    let root = respaldo.path("media");
    symlink("albums/one", root.join("link")).unwrap();
    fs::hard_link(root.join("stays"), root.join("same")).unwrap();
    chown(root.join("changes"), Some(33), Some(33)).unwrap();
    chown(&root, Some(33), Some(44)).unwrap();
    fs::set_permissions(&root, PermissionsExt::from_mode(0o2775)).unwrap();
    tool(Command::new("setfattr").args(["-n", "user.origin", "-v", "x"]).arg(&root));
    // A time of its own, which no write gave it.
    tool(Command::new("touch").args(["-d", "2020-02-02T02:02:02Z"]).arg(&root));
}

/// What happened to it since.
fn spoil(respaldo: &Respaldo) {
    respaldo.write("media/changes", "after");
    fs::remove_file(respaldo.path("media/goes")).unwrap();
    fs::remove_dir_all(respaldo.path("media/albums/two")).unwrap();
    respaldo.write("media/came", "new");
    fs::remove_file(respaldo.path("media/link")).unwrap();
    respaldo.write("media/link/is a folder", "now");
    tool(Command::new("touch").args(["-d", "2021-01-01T01:01:01Z"]).arg(respaldo.path("media")));
}

/// The whole tree, without what a restore keeps in it, and so without the time of its root.
fn content(root: &Path) -> Vec<String> {
    let mut lines = listing(root);
    lines.retain(|line| !line.starts_with(".respaldo-"));
    let root = lines[0].split(' ').map(|word| if word.contains('.') { "" } else { word });
    lines[0] = root.collect::<Vec<_>>().join(" ");
    lines
}

fn time_of(path: &Path) -> String {
    tool(Command::new("stat").args(["--format=%Y"]).arg(path)).trim().to_owned()
}

fn kept_in(root: &Path, start: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let ours = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().contains(start);
    let mut found: Vec<PathBuf> = names.filter(ours).collect();
    found.sort();
    found
}

fn restore(respaldo: &Respaldo, more: &[&str]) -> Output {
    respaldo.run(&[&["restore", "media", "--yes"], more].concat())
}

/// A start of the daemon, and what it said of what was left.
fn next_start(respaldo: &Respaldo) -> String {
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    process::send(daemon.pid(), Signal::TERM);
    daemon.wait_for_log("INFO  stopped");
    let said = daemon.log().join("\n");
    assert_eq!(daemon.end(), 0);
    said
}

fn session() -> Session {
    Session { spool: std::env::temp_dir(), cancel: Default::default(), drilled: false, since: None }
}

fn undo(source: &dyn Source, current: &Path, kept: &Path) -> Kept {
    let name = |path: &Path| path.display().to_string();
    let kept = Kept { current: name(current), kept: name(kept) };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let undone = std::cell::RefCell::new(None);
    // Another test's child, until it is another program, has the lock's file open as well.
    eventually("nobody else holds it", || {
        undone.replace(runtime.block_on(source.undo(&kept, &session())).ok());
        undone.borrow().is_some()
    });
    undone.into_inner().unwrap()
}

fn forget(source: &dyn Source, kept: &Kept) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(source.forget(kept, &session())).unwrap();
}

fn files(folder: &Path) -> Files {
    Files::new(vec![folder.to_owned()], &[], Unreadable::Fail).unwrap()
}

#[test]
fn files_come_back_to_where_they_were_and_an_undo_puts_the_others_back() {
    let respaldo = media();
    let root = respaldo.path("media");
    fill(&respaldo);
    let before = content(&root);
    respaldo.run(&["backup", "media"]).expect(0);
    spoil(&respaldo);
    let spoiled = content(&root);

    let plan = restore(&respaldo, &["--dry-run"]).expect(0);
    assert!(plan.stderr.contains("is replaced, entry by entry, and kept"), "{}", plan.stderr);
    assert_eq!(content(&root), spoiled);
    let done = restore(&respaldo, &[]).expect(0);
    assert_eq!(content(&root), before);
    assert_eq!(time_of(&root), "1580608922");
    let [kept] = &kept_in(&root, "respaldo-before")[..] else { panic!("nothing is kept") };
    assert!(done.stderr.contains(kept.to_str().unwrap()), "{}", done.stderr);
    assert_eq!(fs::read(kept.join("old/came")).unwrap(), b"new");

    // What is kept is in no backup, and no start takes it away.
    respaldo.run(&["backup", "media"]).expect(0);
    assert!(!next_start(&respaldo).contains("cut off"));
    restore(&respaldo, &["--to", respaldo.path("new").to_str().unwrap()]).expect(0);
    assert_eq!(content(&respaldo.path("new")), before);
    assert!(kept_in(&respaldo.path("new"), "respaldo-").is_empty());

    // There, and back again.
    let back = undo(&files(&root), &root, kept);
    assert_eq!((content(&root), time_of(&root)), (spoiled, "1609462861".to_owned()));
    let again = undo(&files(&root), &root, Path::new(&back.kept));
    assert_eq!(content(&root), before);
    forget(&files(&root), &again);
    assert!(kept_in(&root, "respaldo-").is_empty());
}

#[test]
fn killed_at_any_rename_the_folder_is_as_it_was_or_as_the_backup_was() {
    let respaldo = media_of("[\"@DIR@/media\", \"@DIR@/more\"]", "");
    let (root, more) = (respaldo.path("media"), respaldo.path("more"));
    fill(&respaldo);
    respaldo.write("more/x", "before");
    let both = || (content(&root), content(&more));
    let before = both();
    respaldo.run(&["backup", "media"]).expect(0);
    let pristine = respaldo.path("pristine");
    fs::create_dir(&pristine).unwrap();
    tool(Command::new("cp").arg("-a").args([&root, &more, &pristine]));
    let reset = || {
        fs::remove_dir_all(&root).unwrap();
        fs::remove_dir_all(&more).unwrap();
        let copies = ["media", "more"].map(|name| pristine.join(name));
        tool(Command::new("cp").arg("-a").args(&copies).arg(respaldo.folder()));
    };
    let (mut as_it_was, mut finished) = (0, 0);
    for (calls, nth) in RENAMES.into_iter().flat_map(|calls| (1..15).map(move |nth| (calls, nth))) {
        spoil(&respaldo);
        respaldo.write("more/x", "after");
        let spoiled = both();
        let output = respaldo.run_killed_at(calls, nth, &["restore", "media", "--yes"]);
        if output.code == 0 {
            reset();
            continue;
        }
        assert_eq!(output.code, -9, "{}", output.stderr);
        let half = both() != spoiled && both() != before;
        let said = next_start(&respaldo);
        let now = both();
        if now == spoiled {
            as_it_was += 1;
        } else {
            assert_eq!(now, before, "killed at {calls} {nth}; then: {said}");
            finished += 1;
            // What it replaced is remembered.
            respaldo.run(&["undo", "media", "--yes"]).expect(0);
            assert_eq!(both(), spoiled, "killed at {calls} {nth}; then: {said}");
        }
        assert!(!half || said.contains("finished a restore into"), "{calls} {nth}: {said}");
        let left = [kept_in(&root, "respaldo-new"), kept_in(&more, "respaldo-new")].concat();
        assert!(left.is_empty(), "{calls} {nth}: {left:?}; {said}");
        reset();
    }
    assert!(as_it_was > 0 && finished > 5, "{as_it_was} as it was, {finished} finished");
}

#[test]
fn some_of_the_files_come_back_and_the_rest_stays() {
    let respaldo = media();
    let root = respaldo.path("media");
    fill(&respaldo);
    // Of two names of a file an archive has what is in it with the one that the folder lists first.
    let [file, link] = as_listed(&root, ["same", "stays"]);
    respaldo.run(&["backup", "media"]).expect(0);
    spoil(&respaldo);
    let spoiled = content(&root);
    let is = |name: &str, text: &str| {
        assert_eq!(fs::read(root.join(name)).unwrap(), text.as_bytes(), "{name}");
    };
    restore(&respaldo, &["--path", "albums/two", "--path", "ch*s", "--path", "**/a.jpg"]).expect(0);
    is("changes", "before");
    is("albums/two/b.jpg", "b");
    is("came", "new");
    is("link/is a folder", "now");
    assert!(!root.join("goes").exists());
    let [kept] = &kept_in(&root, "before")[..] else { panic!("nothing is kept") };
    assert_eq!(fs::read(kept.join("old/changes")).unwrap(), b"after");
    assert!(!kept.join("old/came").exists(), "what stayed is not kept");
    let undone = undo(&files(&root), &root, kept);
    is("changes", "after");
    assert!(!root.join("albums/two").exists());
    forget(&files(&root), &undone);
    let names = |lines: &[String]| {
        lines.iter().map(|l| l[..l.find(" time").unwrap()].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&content(&root)), names(&spoiled));

    // To a new folder, with the folders on the way as they were.
    let new = respaldo.path("new");
    restore(&respaldo, &["--path", "albums/*/b.jpg", "--to", new.to_str().unwrap()]).expect(0);
    assert_eq!(fs::read(new.join("albums/two/b.jpg")).unwrap(), b"b");
    assert!(!new.join("albums/one").exists() && !new.join("stays").exists());

    let one_file = format!("is one file with {file}: name both");
    for (path, code, part) in [
        ("nothing/like/it", 2, "nothing in the backup is called"),
        ("/etc", 2, "does not lie in the folder"),
        ("../x", 2, "does not lie in the folder"),
        ("a[", 2, "is not possible"),
        (link, 1, &one_file),
    ] {
        let refused = restore(&respaldo, &["--path", path]).expect(code);
        assert!(refused.stderr.contains(part), "{path}: {}", refused.stderr);
        assert!(refused.stderr.contains("hint: "), "{path}: {}", refused.stderr);
        assert!(kept_in(&root, "respaldo-").is_empty(), "{path}");
    }
}

#[test]
fn every_kind_of_entry_passes_where_all_is_chosen() {
    let respaldo = media();
    let root = respaldo.path("media");
    fill(&respaldo);
    let long: PathBuf = (0..9).map(|n| format!("{}{n}", "deep".repeat(9))).collect();
    respaldo.write(&format!("media/{}/file", long.display()), "deep");
    symlink(root.join(&long).join("file"), root.join("long link")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 40 << 20).unwrap();
    tool(Command::new("touch").args(["-d", "2020-02-02T02:02:02Z"]).arg(&root));
    respaldo.run(&["backup", "media"]).expect(0);
    let new = respaldo.path("new");
    restore(&respaldo, &["--path", "*", "--to", new.to_str().unwrap()]).expect(0);
    // The folder itself is not among what was chosen, but on the way to it.
    assert_alike(&root, &new);
    // As GNU tar writes it by itself: its own long names, and its own sparse files.
    let foreign = tool_bytes(
        Command::new("tar")
            .args(["--create", "--format=gnu", "--sparse", "--directory"])
            .arg(&root)
            .arg("."),
    );
    Stored::newest(&respaldo.path("backups"), "media").forge(0, &foreign);
    let gnu = respaldo.path("gnu");
    restore(&respaldo, &["--trust", "--path", "{sparse,deep*}", "--to", gnu.to_str().unwrap()])
        .expect(0);
    assert_eq!(fs::read(gnu.join(&long).join("file")).unwrap(), b"deep");
    assert!(fs::read(gnu.join("sparse")).unwrap() == fs::read(root.join("sparse")).unwrap());
    assert_eq!(fs::read_dir(&gnu).unwrap().count(), 2);
}

fn tool_bytes(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn what_can_not_go_well_is_an_obstacle_and_nothing_is_touched() {
    let disk = Disk::new(8);
    let folder = disk.path().join("media");
    let respaldo = media_of(&format!("{:?}", folder.to_str().unwrap()), "");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("noise"), vec![7; 3 << 20]).unwrap();
    respaldo.run(&["backup", "media"]).expect(0);
    fs::write(folder.join("noise"), "small").unwrap();
    let refused = |part: &str| {
        let before = listing(disk.path());
        let output = restore(&respaldo, &[]).expect(2);
        assert!(output.stderr.contains(part), "{}", output.stderr);
        assert_eq!(listing(disk.path()), before);
    };
    let ballast = disk.fill(1 << 20);
    refused("MB free");
    fs::remove_file(ballast).unwrap();
    fs::create_dir(folder.join("inner")).unwrap();
    let inner = folder.join("inner");
    tool(Command::new("mount").args(["-t", "tmpfs", "inner"]).arg(&inner));
    refused("can't be replaced with it");
    tool(Command::new("umount").arg(&inner));
    let remount = |how: &str| {
        tool(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(disk.path()));
    };
    remount("ro");
    refused("read-only");
    remount("rw");
    restore(&respaldo, &[]).expect(0);
    assert_eq!(fs::metadata(folder.join("noise")).unwrap().len(), 3 << 20);
}

fn sqlite(path: &Path, sql: &str) -> String {
    tool(Command::new("sqlite3").arg(path).arg(sql)).trim_end().to_owned()
}

/// A job `shop` of the database `@DIR@/app/shop.db`, backed up with three rows and five since.
fn shop() -> (Respaldo, PathBuf) {
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.shop]\nretries = 0\ncatch_up = false\n\
         source = {{ sqlite = \"@DIR@/app/shop.db\", fingerprint = \"content\" }}\n"
    ));
    fs::create_dir(respaldo.path("app")).unwrap();
    let path = respaldo.path("app/shop.db");
    sqlite(
        &path,
        "PRAGMA journal_mode = wal; CREATE TABLE t (n); INSERT INTO t VALUES (1), (2), (3)",
    );
    chown(&path, Some(33), Some(44)).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    respaldo.run(&["backup", "shop"]).expect(0);
    sqlite(&path, "INSERT INTO t VALUES (4), (5)");
    (respaldo, path)
}

fn rows(path: &Path) -> String {
    sqlite(path, "PRAGMA integrity_check; SELECT count(*) FROM t").replace('\n', " ")
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn source_of(path: &Path) -> Sqlite {
    Sqlite { path: path.to_owned(), fingerprint: Print::Off }
}

#[test]
fn a_database_file_comes_back_to_where_it_was_and_an_undo_puts_the_other_back() {
    let (respaldo, path) = shop();
    let plan = respaldo.run(&["restore", "shop", "--dry-run"]).expect(0);
    assert!(plan.stderr.contains("in the place of"), "{}", plan.stderr);
    assert_eq!(rows(&path), "ok 5");
    respaldo.run(&["restore", "shop", "--yes"]).expect(0);
    assert_eq!(rows(&path), "ok 3");
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (33, 44, 0o640));
    let folder = path.parent().unwrap();
    let kept = names(folder).into_iter().find(|name| name.starts_with("shop.db.before-")).unwrap();
    assert_eq!(names(folder), ["shop.db".to_owned(), kept.clone()]);
    assert_eq!(rows(&folder.join(&kept)), "ok 5");
    assert!(!next_start(&respaldo).contains("cut off"), "what is kept is no leftover");

    let back = undo(&source_of(&path), &path, &folder.join(&kept));
    assert_eq!((rows(&path), rows(Path::new(&back.kept))), ("ok 5".into(), "ok 3".into()));
    forget(&source_of(&path), &back);
    assert_eq!(names(folder), ["shop.db"]);
}

#[test]
fn killed_at_any_step_a_database_file_is_the_old_one_or_the_new_one() {
    let (respaldo, path) = shop();
    let (mut old, mut new) = (0, 0);
    // Of each kind of call the first, the second and so on, until there is none left to be killed at.
    let mut kinds: Vec<&str> = RENAMES.into_iter().chain(MORE).collect();
    let mut nth = 0;
    let mut sweeps = 1;
    while let Some(&calls) = kinds.last() {
        nth += 1;
        let output = respaldo.run_killed_at(calls, nth, &["restore", "shop", "--yes"]);
        if output.code == 0 {
            assert_eq!(rows(&path), "ok 3");
            let folder = path.parent().unwrap();
            let kept = names(folder).into_iter().find(|name| name.contains("before")).unwrap();
            fs::rename(folder.join(kept), &path).unwrap();
            kinds.pop();
            nth = 0;
            // strace counts the calls of each thread by themselves: how far one sweep comes is chance.
            if kinds.is_empty() && new == 0 && sweeps < 5 {
                sweeps += 1;
                kinds = RENAMES.into_iter().chain(MORE).collect();
            }
            continue;
        }
        assert_eq!(output.code, -9, "{}", output.stderr);
        // As it is found, before anything is cleared.
        let now = rows(&path);
        let said = next_start(&respaldo);
        assert_eq!(rows(&path), now, "{said}");
        match now.as_str() {
            "ok 5" => {
                old += 1;
                assert_eq!(names(path.parent().unwrap()), ["shop.db"], "{calls} {nth}: {said}");
            }
            now => {
                assert_eq!(now, "ok 3", "{nth}");
                new += 1;
                sqlite(&path, "INSERT INTO t VALUES (4), (5)");
                for name in names(path.parent().unwrap()) {
                    assert!(name.starts_with("shop.db"), "{name}");
                    if name.contains("before") {
                        assert_eq!(rows(&path.with_file_name(&name)), "ok 5");
                        fs::remove_file(path.with_file_name(name)).unwrap();
                    }
                }
            }
        }
    }
    assert!(old > 4 && new > 0, "{old} old, {new} new");
}

#[test]
fn where_a_file_can_not_have_two_names_a_kill_between_them_is_made_good() {
    let (respaldo, path) = shop();
    let no_links = "inject=?link,linkat:error=EPERM";
    let killed = ["inject=renameat2:signal=KILL:when=1", no_links];
    assert_eq!(respaldo.run_traced(&killed, &["restore", "shop", "--yes"]).code, -9);
    assert!(!path.exists());
    let said = next_start(&respaldo);
    assert!(said.contains("is back in its place"), "{said}");
    assert_eq!((rows(&path), names(path.parent().unwrap()).len()), ("ok 5".into(), 1));
    respaldo.run_traced(&[no_links], &["restore", "shop", "--yes"]).expect(0);
    assert_eq!((rows(&path), names(path.parent().unwrap()).len()), ("ok 3".into(), 2));
    // What somebody has deleted does not come back by itself.
    fs::remove_file(&path).unwrap();
    next_start(&respaldo);
    assert!(!path.exists());
}

#[test]
fn a_database_that_is_in_use_is_not_replaced_and_one_that_is_damaged_is() {
    let (respaldo, path) = shop();
    let folder = path.parent().unwrap();
    for (mode, sql) in [
        ("wal", "SELECT 1 FROM t;"),
        ("delete", "BEGIN IMMEDIATE;"),
        ("delete", "SELECT 1 FROM t;"),
    ] {
        sqlite(&path, &format!("PRAGMA journal_mode = {mode}"));
        let mut app = Command::new("sqlite3")
            .arg(&path)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, stdout) = (app.stdin.take().unwrap(), app.stdout.take().unwrap());
        writeln!(stdin, "{sql} SELECT 'open';").unwrap();
        let mut lines = BufReader::new(stdout).lines().map(Result::unwrap);
        assert!(lines.any(|line| line == "open"));
        let refused = respaldo.run(&["restore", "shop", "--yes"]).expect(2);
        assert!(
            refused.stderr.contains("stop the application"),
            "{mode} {sql}: {}",
            refused.stderr
        );
        drop(stdin);
        app.wait().unwrap();
        assert_eq!(rows(&path), "ok 5");
        assert_eq!(names(folder), ["shop.db"]);
    }
    let mut bytes = fs::read(&path).unwrap();
    bytes[..4096].fill(0xa5);
    fs::write(&path, &bytes).unwrap();
    fs::write(folder.join("shop.db-wal"), "of the damaged one").unwrap();
    let done = respaldo.run(&["restore", "shop", "--yes"]).expect(0);
    assert!(done.stderr.contains("damaged"), "{}", done.stderr);
    assert_eq!(rows(&path), "ok 3");
    let kept: Vec<String> = names(folder).into_iter().filter(|n| n.contains("before")).collect();
    let [kept] = &kept[..] else { panic!("{kept:?}") };
    assert_eq!(fs::read(folder.join(kept)).unwrap(), bytes);
    assert_eq!(names(folder).len(), 2, "nothing of the damaged one is taken for the new one's");
}

#[test]
fn a_database_file_that_does_not_hold_what_was_backed_up_is_not_put_in_place() {
    let (respaldo, path) = shop();
    let other = respaldo.path("other.db");
    sqlite(&other, "CREATE TABLE t (n); INSERT INTO t VALUES (1), (2), (99)");
    let stored = Stored::newest(&respaldo.path("backups"), "shop");
    stored.forge(0, &fs::read(&other).unwrap());
    let failed = respaldo.run(&["restore", "shop", "--yes", "--trust"]).expect(1);
    assert!(failed.stderr.contains("not what was in them"), "{}", failed.stderr);
    assert_eq!(rows(&path), "ok 5");
    assert_eq!(names(path.parent().unwrap()), ["shop.db"]);
    respaldo.run(&["restore", "shop", "--yes", "--trust", "--unchecked"]).expect(0);
    assert_eq!(rows(&path), "ok 3");
}

/// What can't be moved from one database into another: tables with triggers, views, routines.
const SHOP: &str = "CREATE TABLE t (n INT PRIMARY KEY); INSERT INTO t SELECT seq FROM seq_1_to_300; \
    CREATE TABLE log (what TEXT); INSERT INTO log VALUES ('ñ'); \
    CREATE TRIGGER noted AFTER DELETE ON t FOR EACH ROW INSERT INTO log VALUES ('gone'); \
    CREATE VIEW few AS SELECT * FROM t WHERE n < 10; \
    CREATE FUNCTION doubled(x INT) RETURNS INT DETERMINISTIC RETURN x * 2;";

/// A job `db` of a database that was changed since its backup, and what it held then and holds now.
fn mariadb_job(database: &Database<'_>, password: &str) -> (Respaldo, String, String) {
    let (url, password) = (text(&database.url_of(Mariadb::USER)), text(password));
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.db]\nretries = 0\ncatch_up = false\n\
         source = {{ mysql = {url}, password = {password} }}\n"
    ));
    database.sql(SHOP);
    let before = database.contents();
    respaldo.run(&["backup", "db"]).expect(0);
    database.sql("DELETE FROM t WHERE n > 200; CREATE TABLE more (n INT); DROP VIEW few");
    (respaldo, before, database.contents())
}

fn beside(server: &Mariadb, database: &Database<'_>) -> Vec<String> {
    let start = format!("{}__new_", database.name);
    let all = server.sql("", "SHOW DATABASES");
    all.lines().filter(|name| name.starts_with(&start)).map(str::to_owned).collect()
}

#[test]
fn what_a_mysql_database_holds_is_given_up_only_when_asked_and_for_what_is_right() {
    let server = Mariadb::start();
    let database = server.database("inplace");
    let (respaldo, before, now) = mariadb_job(&database, &server.password);
    let refused = respaldo.run(&["restore", "db", "--yes"]).expect(2);
    assert!(refused.stderr.contains("--in-place"), "{}", refused.stderr);
    let user = format!("g{}", std::process::id());
    let name = quote(&database.name);
    database.sql(&format!("CREATE OR REPLACE USER {user}; GRANT SELECT ON {name}.* TO {user}"));

    // A dump that lost its rows is found beside the database, which stays as it is.
    let stored = Stored::newest(&respaldo.path("backups"), "db");
    let whole = tool(Command::new("zstd").arg("-dc").arg(stored.artifact(0)));
    let lost = whole.replace("-- Dump completed", "TRUNCATE TABLE t;\n-- Dump completed");
    let (manifest, sound) = (stored.manifest(), fs::read(stored.artifact(0)).unwrap());
    stored.forge(0, lost.as_bytes());
    let arguments = ["restore", "db", "--yes", "--in-place", "--trust"];
    let failed = respaldo.run(&arguments).expect(1);
    assert!(failed.stderr.contains("has 0 rows, and had 300"), "{}", failed.stderr);
    assert_eq!((database.contents(), beside(server, &database)), (now, Vec::new()));

    fs::write(stored.artifact(0), sound).unwrap();
    stored.write_manifest(&manifest);
    let plan = respaldo.run(&[&arguments[..], &["--dry-run"]].concat()).expect(0);
    assert!(plan.stderr.contains("is dropped"), "{}", plan.stderr);
    respaldo.run(&arguments).expect(0);
    assert_eq!((database.contents(), beside(server, &database)), (before.clone(), Vec::new()));
    let grants = database.sql(&format!("SHOW GRANTS FOR {user}; DROP USER {user}"));
    assert!(grants.contains("GRANT SELECT ON"), "{grants}");

    // Into an empty one it is loaded right away, and compared too.
    let empty = server.database("empty");
    stored.forge(0, lost.as_bytes());
    let arguments = ["restore", "db", "--yes", "--trust", "--database", &empty.name];
    let failed = respaldo.run(&arguments).expect(1);
    assert!(failed.stderr.contains("has 0 rows, and had 300"), "{}", failed.stderr);
    assert_eq!(empty.sql("SHOW TABLES"), "");
}

#[test]
fn killed_while_a_mysql_database_is_replaced_the_next_start_finishes_it() {
    let server = Mariadb::start();
    let database = server.database("killed");
    let (respaldo, before, _) = mariadb_job(&database, &server.password);
    // Somebody reads: the drop waits for the end of it.
    let mut reader = server
        .client("mariadb")
        .arg(format!("--database={}", database.name))
        .args(["--unbuffered", "--skip-column-names"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, stdout) = (reader.stdin.take().unwrap(), reader.stdout.take().unwrap());
    writeln!(stdin, "BEGIN; SELECT count(*) FROM t; SELECT 'reads';").unwrap();
    assert!(BufReader::new(stdout).lines().any(|line| line.unwrap() == "reads"));
    let running = respaldo.watch(&["restore", "db", "--yes", "--in-place"]);
    let waits = format!(
        "SELECT count(*) FROM information_schema.PROCESSLIST WHERE STATE LIKE 'Waiting for%lock' AND INFO LIKE 'DROP DATABASE%{}%'",
        database.name
    );
    let deadline = std::time::Instant::now() + DEADLINE;
    while server.sql("", &waits) == "0" {
        assert!(std::time::Instant::now() < deadline, "{:?}", running.log());
    }
    running.kill9();
    drop(stdin);
    reader.wait().unwrap();
    assert_eq!(beside(server, &database).len(), 1);
    let said = next_start(&respaldo);
    assert!(said.contains("finished a restore into"), "{said}");
    assert_eq!((database.contents(), beside(server, &database)), (before.clone(), Vec::new()));

    // Somebody has mended the database since: then it is nobody's to drop.
    let whole = server.existing(&format!("{}__new_20251123t020000z", database.name));
    server.sql("", &format!("CREATE DATABASE {}", quote(&whole.name)));
    whole.sql("CREATE TABLE t (n INT); CREATE TABLE respaldo_is_loaded (n INT)");
    database.sql("INSERT INTO log VALUES ('a day of new orders')");
    let mended = database.contents();
    let said = next_start(&respaldo);
    assert!(said.contains("which is left as it is"), "{said}");
    assert_eq!((database.contents(), beside(server, &database).len()), (mended, 1));
    // But who restores anew wants nothing of a former one.
    respaldo.run(&["restore", "db", "--yes", "--in-place"]).expect(0);
    assert_eq!((database.contents(), beside(server, &database)), (before.clone(), Vec::new()));

    // What is not marked as whole is dropped, unless somebody loads it now.
    let half = format!("{}__new_20251124t020000z", database.name);
    let foreign = server.existing(&format!("{}__new_mine", database.name));
    server.sql(
        "",
        &format!("CREATE DATABASE {}; CREATE DATABASE {}", quote(&half), quote(&foreign.name)),
    );
    assert!(next_start(&respaldo).contains("which a restore that was cut off left"));
    assert_eq!(beside(server, &database).join(" "), foreign.name);
    assert_eq!(database.contents(), before);
}
