//! A folder comes back exactly as it was, whatever is in it; what can't be read fails the run, what
//! changes meanwhile is named; and no archive writes outside the folder that was asked for.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::config::{HEAD, LOCAL, s3};
use crate::support::process;
use crate::support::program::{Respaldo, Running};
use crate::support::s3::{Act, Rule, S3};
use crate::support::stored::Stored;
use crate::support::tree::{as_listed, assert_alike, listing};
use crate::support::{DEADLINE, tool};

const MIB: u64 = 1 << 20;

/// A job `media` of one folder, `@DIR@/media`, with further keys of its source.
fn media(more: &str) -> Respaldo {
    Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.media]\nretries = 0\nsource = {{ files = \"@DIR@/media\"{more} }}\n"
    ))
}

fn stored(respaldo: &Respaldo) -> Stored {
    Stored::newest(&respaldo.path("backups"), "media")
}

fn warnings(respaldo: &Respaldo) -> Vec<String> {
    let manifest = stored(respaldo).manifest();
    let warnings = manifest["warnings"].as_array().cloned().unwrap_or_default();
    warnings.iter().map(|warning| warning.as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn restore(respaldo: &Respaldo, target: &Path) {
    respaldo.run(&["restore", "media", "--to", target.to_str().unwrap(), "--yes"]).expect(0);
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn touch(path: &Path, seconds: i64, nanos: u32) {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let at = if seconds < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
    File::open(path).unwrap().set_modified(at + Duration::from_nanos(nanos.into())).unwrap();
}

/// Every kind of entry that a folder of uploads has come to hold.
pub fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("albums/empty")).unwrap();
    let odd: [&[u8]; 14] = [
        b"-rf",
        b"--checkpoint-action=exec=touch pwned",
        b"new\nline",
        b"quo'te\"d",
        b" space ",
        b"tab\tbell\x07",
        b"back\\slash \\n \\101",
        b"*glob?[x]",
        b".hidden",
        b"@at",
        b"#hash",
        "ñandú 🦙 \u{202e}".as_bytes(),
        b"not \xff\xfe utf-8",
        b"$(touch pwned);`x`",
    ];
    for name in odd {
        fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::write(root.join("n".repeat(255)), "a long name").unwrap();
    let deep: PathBuf = (0..12).map(|n| format!("{}{n}", "deep".repeat(9))).collect();
    fs::create_dir_all(root.join(&deep)).unwrap();
    assert!(deep.as_os_str().len() > 400);
    fs::write(root.join(&deep).join("file"), "deep down").unwrap();
    symlink(root.join(&deep), root.join("long link")).unwrap();

    let noise: Vec<u8> =
        (0_u32..80_000).flat_map(|n| respaldo::pipeline::sha256(&n.to_be_bytes()).0).collect();
    fs::write(root.join("albums/noise.jpg"), noise).unwrap();
    fs::write(root.join("albums/nothing.jpg"), "").unwrap();
    fs::hard_link(root.join("albums/noise.jpg"), root.join("albums/same.jpg")).unwrap();
    fs::hard_link(root.join("albums/noise.jpg"), root.join("third name")).unwrap();

    for (target, name) in [
        ("albums/noise.jpg", "relative"),
        ("/etc/hostname", "absolute"),
        ("../../gone", "dangling"),
        ("albums", "to a folder"),
        ("loop", "loop"),
        ("not\nthere", "albums/odd"),
    ] {
        symlink(target, root.join(name)).unwrap();
    }
    fs::hard_link(root.join("dangling"), root.join("dangling too")).unwrap();
    lchown(root.join("absolute"), Some(1234), Some(4321)).unwrap();

    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"middle", 20 * MIB + 17).unwrap();
    sparse.write_all_at(b"end", 64 * MIB - 3).unwrap();
    File::create(root.join("all hole")).unwrap().set_len(32 * MIB).unwrap();

    tool(Command::new("mkfifo").arg(root.join("fifo")));
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        tool(Command::new("mknod").arg(root.join("null")).args(["c", "1", "3"]));
    }
    for (name, bits) in
        [("setuid", 0o4755), ("setgid", 0o2711), ("nobody may", 0o000), ("script", 0o744)]
    {
        fs::write(root.join(name), name).unwrap();
        chown(root.join(name), Some(33), Some(1000)).unwrap();
        mode(&root.join(name), bits);
    }
    fs::create_dir(root.join("sticky")).unwrap();
    fs::write(root.join("sticky/inside"), "x").unwrap();
    mode(&root.join("sticky"), 0o3777);
    fs::create_dir(root.join("closed")).unwrap();
    fs::write(root.join("closed/inside"), "x").unwrap();
    mode(&root.join("closed"), 0o500);

    let noted = root.join("noted");
    fs::write(&noted, "x").unwrap();
    for path in [&noted, &root.join("albums"), root] {
        tool(Command::new("setfattr").args(["-n", "user.origin", "-v", "caméra \n=1"]).arg(path));
        tool(Command::new("setfacl").args(["-m", "u:1234:r-x,g:4321:rwx"]).arg(path));
    }
    tool(Command::new("setfacl").args(["-d", "-m", "u:99:rwx"]).arg(root.join("albums/empty")));

    touch(&root.join("script"), 1_000_000_000, 123_456_789);
    touch(&root.join("setuid"), -86_400, 0);
    touch(&root.join("setgid"), 5_000_000_000, 1);
    touch(&root.join("albums/empty"), 86_400, 500);
    touch(&root.join("closed"), 1_234_567_890, 7);
    chown(root, Some(33), Some(33)).unwrap();
    mode(root, 0o2775);
    touch(root, 1_111_111_111, 222);
}

#[test]
fn a_tree_comes_back_exactly() {
    let respaldo = media("");
    let root = respaldo.path("media");
    fs::create_dir(&root).unwrap();
    make_tree(&root);
    let before = listing(&root);
    assert!(before.len() > 55, "{}", before.len());
    assert!(
        before.iter().any(|line| line.contains("posix_acl_default")),
        "no ACLs here: {before:?}"
    );
    respaldo.run(&["backup", "media"]).expect(0);
    assert_eq!(listing(&root), before, "the backup changed what it read");
    respaldo.run(&["verify", "media"]).expect(0);

    let target = respaldo.path("new folder/below");
    fs::create_dir(target.parent().unwrap()).unwrap();
    restore(&respaldo, &target);
    assert_alike(&root, &target);
    // With what a restore that was killed has left in it, which is in nobody's way.
    let there = respaldo.path("there already");
    let tag = stored(&respaldo).id().to_lowercase();
    respaldo.write(&format!("there already/.respaldo-new-{tag}/half"), "half");
    mode(&there, 0o755);
    restore(&respaldo, &there);
    assert_alike(&root, &there);
    for folder in [target.parent().unwrap(), respaldo.folder()] {
        let hidden = |name: &str| name.starts_with('.') || name == "pwned";
        let names = fs::read_dir(folder).unwrap();
        assert!(!names.map(|e| e.unwrap().file_name()).any(|n| hidden(&n.to_string_lossy())));
    }

    let artifact = &stored(&respaldo).manifest()["artifacts"][0];
    assert_eq!(artifact["name"], "media.tar.zst");
    let plain = artifact["plain_bytes"].as_u64().unwrap();
    assert!(plain < 5 * MIB, "the holes of sparse files are in the archive: {plain} bytes");
    for name in ["sparse", "all hole"] {
        let meta = fs::metadata(target.join(name)).unwrap();
        assert!(meta.blocks() * 512 < MIB, "{name} is no longer sparse: {} blocks", meta.blocks());
    }
}

#[test]
fn a_socket_is_left_out_with_a_warning() {
    let respaldo = media("");
    respaldo.write("media/a", "a");
    let _socket = std::os::unix::net::UnixListener::bind(respaldo.path("media/so cket")).unwrap();
    respaldo.run(&["backup", "media"]).expect(0);
    assert_eq!(warnings(&respaldo), ["./so cket: a socket, left out"]);
    restore(&respaldo, &respaldo.path("new"));
    assert_alike(&respaldo.path("media"), &respaldo.path("new"));
}

#[test]
fn what_is_excluded_is_left_out_and_nothing_else() {
    let respaldo = media(", exclude = [\"cache/**\", \"**/*.tmp\", \"exact\", \"*/ha[lm]f\"]");
    let left_out = [
        "cache/a",
        "cache/b/c",
        "x.tmp",
        "a/b/y.tmp",
        "exact",
        "a/half",
        "a/.tmp",
        "new\nline.tmp",
    ];
    let kept = ["a/cache/a", "cached", "x.tmp.jpg", "a/exact", "half", "a/b/half", "a/hatf", "tmp"];
    for name in left_out.iter().chain(&kept) {
        respaldo.write(&format!("media/{name}"), name);
    }
    respaldo.run(&["backup", "media"]).expect(0);
    restore(&respaldo, &respaldo.path("new"));
    for name in left_out {
        assert!(!respaldo.path("new").join(name).exists(), "{name} was not left out");
    }
    for name in kept {
        assert!(respaldo.path("new").join(name).is_file(), "{name} was left out");
    }
    assert!(respaldo.path("new/cache").is_dir());
}

#[test]
fn an_unreadable_file_fails_the_run_unless_the_job_says_otherwise() {
    for (more, code) in [("", 1), (", unreadable = \"warn\"", 0)] {
        let respaldo = media(more);
        for name in ["a", "closed folder/inside", "se\ncret", "z"] {
            respaldo.write(&format!("media/{name}"), name);
        }
        mode(&respaldo.path("media/se\ncret"), 0o600);
        mode(&respaldo.path("media/closed folder"), 0o700);
        for folder in ["data", "backups"] {
            fs::create_dir(respaldo.path(folder)).unwrap();
            mode(&respaldo.path(folder), 0o777);
        }
        let output = respaldo.run_as_nobody(&["backup", "media"]).expect(code);
        if code == 1 {
            let [first, _] = as_listed(&respaldo.path("media"), ["closed folder", "se\ncret"]);
            let first = first.replace('\n', "\\n");
            for part in [&first, "and 1 more", "hint: ", "unreadable = \"warn\""] {
                assert!(output.stderr.contains(part), "{}", output.stderr);
            }
            assert_eq!(Stored::ids(&respaldo.path("backups"), "media"), Vec::<String>::new());
            continue;
        }
        let warnings = warnings(&respaldo);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        for part in ["closed folder", "se\\ncret"] {
            assert!(warnings.iter().any(|w| w.contains(part) && w.contains("ermission denied")));
        }
        // What was left out is said at the terminal too, and the rest is there.
        assert!(output.stderr.contains("closed folder"), "{}", output.stderr);
        let target = respaldo.path("data/new");
        let arguments = ["restore", "media", "--yes", "--to", target.to_str().unwrap()];
        respaldo.run_as_nobody(&arguments).expect(0);
        assert!(target.join("a").is_file() && target.join("z").is_file());
        assert!(!target.join("se\ncret").exists() && !target.join("closed folder/inside").exists());
    }
}

/// A backup to S3 alone that was stopped in the midst of one of two large files.
struct Halfway {
    respaldo: Respaldo,
    s3: S3,
    running: Running,
    /// The one that tar is reading.
    open: PathBuf,
    other: PathBuf,
}

fn halfway() -> Halfway {
    let server = S3::start();
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{}[jobs.media]\nretries = 0\ncompression = \"none\"\n\
         source = {{ files = \"@DIR@/media\" }}\n",
        s3("offsite", &server, "x")
    ));
    let block = vec![b'x'; 1 << 20];
    for name in ["one", "two"] {
        fs::create_dir_all(respaldo.path("media")).unwrap();
        let file = File::create(respaldo.path("media").join(name)).unwrap();
        (0..64).for_each(|n| file.write_all_at(&block, n * MIB).unwrap());
    }
    // Two parts on their way, one being filled, and what is in the pipes: less than one file.
    server.faults.set(Rule::on("PUT", "partNumber="), Act::Hang);
    let running = respaldo.start(&["backup", "media"]);
    server.faults.wait_for("PUT", "partNumber=", 2);
    let tars = process::children_named(running.pid(), "tar");
    let fds = fs::read_dir(format!("/proc/{}/fd", tars[0].pid)).unwrap();
    let open = fds
        .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        .find(|path| path.starts_with(respaldo.path("media")) && path.is_file())
        .expect("tar has no file open");
    let other = if open.ends_with("one") { "two" } else { "one" };
    let other = respaldo.path("media").join(other);
    Halfway { respaldo, s3: server, running, open, other }
}

impl Halfway {
    /// Lets it go on; the backup is committed, whole, and names what happened in its warnings.
    fn goes_on(self, name: &Path, warning: &str) -> (Respaldo, S3) {
        self.s3.faults.clear();
        self.running.finish(DEADLINE).expect(0);
        let stored = Stored::newest(&self.s3.folder().join("x"), "media").manifest();
        let warnings = stored["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let said = warnings[0].as_str().unwrap();
        let name = name.file_name().unwrap().to_str().unwrap();
        assert!(said.contains(name) && said.contains(warning), "{said}");
        self.respaldo.run(&["verify", "media"]).expect(0);
        restore(&self.respaldo, &self.respaldo.path("new"));
        (self.respaldo, self.s3)
    }
}

#[test]
fn a_file_that_grows_is_named_and_the_archive_is_whole() {
    let halfway = halfway();
    let (open, other) = (halfway.open.clone(), halfway.other.clone());
    OpenOptions::new().write(true).open(&open).unwrap().write_all_at(b"more", 64 * MIB).unwrap();
    let (respaldo, _s3) = halfway.goes_on(&open, "file changed as we read it");
    let restored = respaldo.path("new").join(open.file_name().unwrap());
    assert_eq!(fs::metadata(restored).unwrap().len(), 64 * MIB);
    let restored = respaldo.path("new").join(other.file_name().unwrap());
    assert_eq!(fs::read(restored).unwrap(), fs::read(other).unwrap());
}

#[test]
fn a_file_that_shrinks_is_named_and_the_archive_is_whole() {
    let halfway = halfway();
    let (open, other) = (halfway.open.clone(), halfway.other.clone());
    OpenOptions::new().write(true).open(&open).unwrap().set_len(60 * MIB).unwrap();
    let (respaldo, _s3) = halfway.goes_on(&open, "File shrank by");
    let restored = respaldo.path("new").join(other.file_name().unwrap());
    assert_eq!(fs::read(restored).unwrap(), fs::read(other).unwrap());
}

#[test]
fn a_file_that_vanishes_is_named_and_the_archive_is_whole() {
    let halfway = halfway();
    let (open, other) = (halfway.open.clone(), halfway.other.clone());
    fs::remove_file(&other).unwrap();
    let (respaldo, _s3) = halfway.goes_on(&other, "No such file or directory");
    assert!(!respaldo.path("new").join(other.file_name().unwrap()).exists());
    let restored = respaldo.path("new").join(open.file_name().unwrap());
    assert_eq!(fs::read(restored).unwrap(), fs::read(open).unwrap());
}

#[test]
fn several_folders_get_one_each() {
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.media]\n\
         source = {{ files = [\"@DIR@/a/media\", \"@DIR@/b/media\", \"@DIR@/x.tar\"] }}\n"
    ));
    for folder in ["a/media", "b/media", "x.tar"] {
        respaldo.write(&format!("{folder}/which"), folder);
    }
    respaldo.run(&["backup", "media"]).expect(0);
    let target = respaldo.path("new");
    restore(&respaldo, &target);
    for (folder, restored) in [("a/media", "media"), ("b/media", "media-2"), ("x.tar", "x.tar")] {
        assert_alike(&respaldo.path(folder), &target.join(restored));
    }
    assert_eq!(fs::read_dir(&target).unwrap().count(), 3);
}

#[test]
fn one_folder_with_a_comma_in_its_name_is_one_folder() {
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.media]\nsource = {{ files = [\"@DIR@/one, two\"] }}\n"
    ));
    respaldo.write("one, two/file", "x");
    respaldo.run(&["backup", "media"]).expect(0);
    restore(&respaldo, &respaldo.path("new"));
    assert_alike(&respaldo.path("one, two"), &respaldo.path("new"));
}

#[test]
fn a_folder_may_be_a_link_and_must_be_there() {
    let respaldo = media("");
    respaldo.write("elsewhere/a", "a");
    let failed = respaldo.run(&["backup", "media"]).expect(1);
    assert!(failed.stderr.contains("mounted and readable"), "{}", failed.stderr);
    respaldo.write("media", "a file");
    let failed = respaldo.run(&["backup", "media"]).expect(1);
    assert!(failed.stderr.contains("is not a folder"), "{}", failed.stderr);
    fs::remove_file(respaldo.path("media")).unwrap();
    symlink("elsewhere", respaldo.path("media")).unwrap();
    respaldo.run(&["backup", "media"]).expect(0);
    restore(&respaldo, &respaldo.path("new"));
    assert_alike(&respaldo.path("elsewhere"), &respaldo.path("new"));
}

/// Members of a tar file in Python: each is a name, and a type with its link, or bytes.
const HOSTILE: &str = r#"
import io, sys, tarfile
outside, which = sys.argv[1:]
tar = tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT)
def add(name, type=tarfile.REGTYPE, link="", data=b""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = type, link, len(data), 0o644
    tar.addfile(info, io.BytesIO(data))
if which == "up": add("a/../../evil", data=b"evil")
if which == "up twice": add("../../evil", data=b"evil")
if which == "absolute": add(outside + "/evil", data=b"evil")
if which == "link":
    add("link", tarfile.SYMTYPE, outside)
    add("link/evil", data=b"evil")
if which == "relative link":
    add("a/link", tarfile.SYMTYPE, "../../outside")
    add("a/link/evil", data=b"evil")
if which == "link to a file":
    add("link", tarfile.SYMTYPE, outside + "/precious")
    add("link", data=b"evil")
if which == "hard link":
    add("link", tarfile.LNKTYPE, outside + "/precious")
    add("link", data=b"evil")
if which == "hard link up":
    add("link", tarfile.LNKTYPE, "../outside/precious")
    add("link", data=b"evil")
if which == "link through a folder":
    add("x", tarfile.SYMTYPE, ".")
    add("x/y", tarfile.SYMTYPE, outside)
    add("y/evil", data=b"evil")
if which == "first half": add("link", tarfile.SYMTYPE, outside)
if which == "second half": add("link/evil", data=b"evil")
tar.close()
"#;

fn hostile(outside: &Path, which: &str) -> Vec<u8> {
    let python =
        Command::new("/usr/bin/python3").args(["-c", HOSTILE]).arg(outside).arg(which).output();
    let output = python.expect("python3 is missing");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A backup whose archives may be replaced by hostile ones, and what must not be touched by them.
struct Trap {
    respaldo: Respaldo,
    stored: Stored,
    outside: PathBuf,
}

impl Trap {
    fn set() -> Self {
        let respaldo = media("");
        respaldo.write("media/a", "a");
        respaldo.run(&["backup", "media"]).expect(0);
        let stored = stored(&respaldo);
        respaldo.write("there/outside/precious", "precious");
        let outside = respaldo.path("there/outside");
        Self { respaldo, stored, outside }
    }

    /// Restores into a new and into an empty folder. Whether it fails or not: all that was touched
    /// is the target.
    fn spring(&self, what: &str) {
        let before = listing(&self.outside);
        for (target, more) in [("new", &[][..]), ("empty", &[]), ("new", &["--path", "**"])] {
            let target = self.outside.with_file_name(target);
            if target.ends_with("empty") {
                fs::create_dir(&target).unwrap();
            }
            let arguments = ["restore", "media", "--yes", "--trust", "--to"];
            let to = [target.to_str().unwrap()];
            let output = self.respaldo.run(&[&arguments[..], &to, more].concat());
            assert!([0, 1].contains(&output.code), "{what}: {output:?}");
            assert_eq!(listing(&self.outside), before, "{what} wrote outside");
            drop(fs::remove_dir_all(&target));
            for folder in [self.outside.parent().unwrap(), self.respaldo.folder()] {
                let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name());
                let names: Vec<_> = names.collect();
                let right = ["outside", "there", "media", "backups", "data", "respaldo.toml"];
                assert!(
                    names.iter().all(|n| right.contains(&n.to_str().unwrap())),
                    "{what}: {names:?}"
                );
            }
        }
    }
}

#[test]
fn a_hostile_archive_writes_nothing_outside_its_target() {
    let trap = Trap::set();
    for which in [
        "up",
        "up twice",
        "absolute",
        "link",
        "relative link",
        "link to a file",
        "hard link",
        "hard link up",
        "link through a folder",
    ] {
        trap.stored.forge(0, &hostile(&trap.outside, which));
        trap.spring(which);
    }
}

#[test]
fn a_second_archive_does_not_follow_the_links_of_the_first() {
    // One that was made for several folders, and one that only says so.
    for (names, source) in [
        (["a.tar.zst", "a.tar"], "/one"),
        (["a.tar", "b.tar"], "/one"),
        (["a.tar.zst", "a.tar"], "/one, /two"),
        (["link.tar", "b.tar"], "/one, /two"),
    ] {
        let trap = Trap::set();
        trap.stored.forge_as(0, names[0], &hostile(&trap.outside, "first half"));
        trap.stored.forge_as(1, names[1], &hostile(&trap.outside, "second half"));
        let mut manifest = trap.stored.manifest();
        manifest["sources"][0]["name"] = source.into();
        trap.stored.write_manifest(&manifest);
        trap.spring(&format!("{names:?} of {source}"));
    }
}
