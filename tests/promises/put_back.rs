//! What is restored to where it was: loaded beside what is there, put in its place in a way that no
//! kill leaves between, kept and put back on demand.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use respaldo::source::files::{Files, Unreadable};
use respaldo::source::{Kept, Session, Source};
use rustix::process::Signal;

use crate::support::config::{HEAD, LOCAL};
use crate::support::disk::Disk;
use crate::support::process;
use crate::support::program::{Output, Respaldo};
use crate::support::stored::Stored;
use crate::support::tool;
use crate::support::tree::{assert_alike, listing};

/// What puts one thing in the place of another.
const RENAMES: &str = "rename,renameat,renameat2";

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
    Session { spool: std::env::temp_dir(), cancel: Default::default(), drilled: false }
}

fn undo(source: &dyn Source, current: &Path, kept: &Path) -> Kept {
    let name = |path: &Path| path.display().to_string();
    let kept = Kept { current: name(current), kept: name(kept) };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(source.undo(&kept, &session())).unwrap()
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
    for nth in 1.. {
        spoil(&respaldo);
        respaldo.write("more/x", "after");
        let spoiled = both();
        let output = respaldo.run_killed_at(RENAMES, nth, &["restore", "media", "--yes"]);
        if output.code == 0 {
            break;
        }
        assert_eq!(output.code, -9, "{}", output.stderr);
        let half = both() != spoiled && both() != before;
        let said = next_start(&respaldo);
        let now = both();
        if now == spoiled {
            as_it_was += 1;
        } else {
            assert_eq!(now, before, "killed at rename {nth}; then: {said}");
            finished += 1;
        }
        assert!(!half || said.contains("finished a restore into"), "{nth}: {said}");
        assert!(kept_in(&root, "respaldo-new").is_empty() && kept_in(&more, "new-").is_empty());
        reset();
    }
    assert!(as_it_was > 0 && finished > 5, "{as_it_was} as it was, {finished} finished");
}

#[test]
fn some_of_the_files_come_back_and_the_rest_stays() {
    let respaldo = media();
    let root = respaldo.path("media");
    fill(&respaldo);
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

    for (path, code, part) in [
        ("nothing/like/it", 2, "nothing in the backup is called"),
        ("/etc", 2, "does not lie in the folder"),
        ("../x", 2, "does not lie in the folder"),
        ("a[", 2, "is not possible"),
        ("same", 1, "is one file with stays: name both"),
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
