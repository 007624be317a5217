//! Two installations that back one job up to one place in the same second: neither writes over what the other has
//! written, and whoever came later says so.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::eventually;
use crate::support::program::{Output, Respaldo};
use crate::support::s3::{Act, Rule, S3};
use crate::support::scene::{HEAD, LOCAL, last_run, local_root, offsite, offsite_root};
use crate::support::stored::Stored;

const THEIRS: &[u8] = b"what the other one has written";
const NAME: &str = "out.bin";

/// A job of so many bytes, which are made once the test has done its part.
fn job(s3: &S3, bytes: usize) -> Respaldo {
    job_on(&format!("{LOCAL}{}", offsite(s3)), bytes)
}

fn job_on(destinations: &str, bytes: usize) -> Respaldo {
    let script = format!(
        "touch @DIR@/begun; until [ -e @DIR@/go ]; do sleep 0.05; done; head -c {bytes} /dev/urandom"
    );
    Respaldo::new(&format!(
        "{HEAD}{destinations}[jobs.out]\nretries = 0\ncompression = \"none\"\n\
         source = {{ command = [\"sh\", \"-c\", {script:?}], name = \"out\" }}\n"
    ))
}

/// A backup in whose folders somebody else writes a file of the same name meanwhile.
fn backed_up(respaldo: &Respaldo, roots: &[PathBuf]) -> Output {
    let running = respaldo.start(&["backup", "out"]);
    let id = || Stored::ids(&local_root(respaldo), "out").pop();
    eventually("it has begun", || respaldo.path("begun").exists() && id().is_some());
    for root in roots {
        let folder = root.join("out").join(id().unwrap());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(NAME), THEIRS).unwrap();
    }
    respaldo.write("go", "");
    running.finish(Duration::from_secs(60))
}

/// In one request, and in parts.
const SIZES: [usize; 2] = [1000, 20_000_000];

#[test]
fn what_another_installation_has_written_is_not_written_over() {
    for bytes in SIZES {
        let s3 = S3::start();
        let respaldo = job(&s3, bytes);
        let roots = [local_root(&respaldo), offsite_root(&s3)];
        let said = backed_up(&respaldo, &roots).expect(1).all();
        assert!(said.contains("do two respaldos share this"), "{said}");
        for root in roots {
            let theirs = Stored::newest(&root, "out");
            assert_eq!(fs::read(theirs.path(NAME)).unwrap(), THEIRS, "{}", root.display());
            assert!(!theirs.path("manifest.json").exists());
        }
        assert_eq!(s3.incomplete_uploads().len(), 0);
    }
}

#[test]
fn where_nobody_else_wrote_the_backup_is_whole() {
    for bytes in SIZES {
        let s3 = S3::start();
        let respaldo = job(&s3, bytes);
        let said = backed_up(&respaldo, &[local_root(&respaldo)]).expect(3).all();
        assert!(said.contains("do two respaldos share this"), "{said}");
        respaldo.run(&["verify", "out", "--destination", "offsite"]).expect(0);
    }
}

#[test]
fn of_two_in_the_same_second_one_makes_the_backup_and_the_other_says_so() {
    let s3 = S3::start();
    // Nothing is to be seen in a bucket before a file is whole: both take the same name.
    for _ in 0..20 {
        let both = [(); 2].map(|()| job_on(&offsite(&s3), 1000));
        let running = [&both[0], &both[1]].map(|respaldo| respaldo.start(&["backup", "out"]));
        for respaldo in &both {
            eventually("it has begun", || respaldo.path("begun").exists());
        }
        let ids = [&both[0], &both[1]].map(|respaldo| last_run(respaldo, "out")["backup"].clone());
        both.iter().for_each(|respaldo| drop(respaldo.write("go", "")));
        let ended = running.map(|running| running.finish(Duration::from_secs(60)));
        if ids[0] != ids[1] {
            continue;
        }
        let mut codes = [ended[0].code, ended[1].code];
        codes.sort_unstable();
        assert_eq!(codes, [0, 1], "{ended:#?}");
        let (made, late) = if ended[0].code == 0 { (0, 1) } else { (1, 0) };
        let said = ended[late].all();
        assert!(said.contains("do two respaldos share this prefix?"), "{said}");
        let id = ids[0].as_str().unwrap();
        both[made].run(&["verify", "out", id]).expect(0);
        // Neither when it begins anew is it cleared away.
        both[late].run(&["prune", "out", "--yes"]);
        both[made].run(&["verify", "out", id]).expect(0);
        return;
    }
    panic!("twenty times not in the same second");
}

/// As on a mount of rclone: a rename takes no flags, and there are no links.
#[test]
fn a_folder_that_can_refuse_nothing_by_itself_is_looked_at_first() {
    let respaldo = job_on(LOCAL, 1000);
    respaldo.write("go", "");
    let no_links = "inject=link,linkat:error=EPERM";
    // Which of its renames is one that must not replace anything, only a trace would tell.
    let mut looked = 0;
    for nth in 1..12 {
        let no_flags = format!("inject=renameat2:error=EINVAL:when={nth}");
        let said = respaldo.run_traced(&[&no_flags, no_links], &["backup", "out"]);
        looked += usize::from(said.code == 0);
    }
    assert!(looked >= 2, "neither a volume nor a manifest was stored so");
    respaldo.run(&["verify", "out"]).expect(0);
}

#[test]
fn what_was_cleared_away_before_it_is_committed_is_no_backup() {
    let s3 = S3::start();
    let respaldo = job(&s3, 1000);
    respaldo.write("go", "");
    s3.faults.set(Rule::on("PUT", NAME), Act::Hang);
    let running = respaldo.start(&["backup", "out"]);
    s3.faults.wait_for("PUT", NAME, 1);
    let half = Stored::newest(&local_root(&respaldo), "out");
    let log = respaldo.path(&format!("data/logs/out/backup_{}.log", half.id()));
    let stored = format!("{NAME}: 1.00 kB in, 1.00 kB stored");
    let says = || fs::read_to_string(&log).is_ok_and(|text| text.contains(&stored));
    eventually("the folder has it", says);
    fs::remove_file(half.path(NAME)).unwrap();
    s3.faults.clear();
    let said = running.finish(Duration::from_secs(60)).expect(3).all();
    assert!(said.contains("is not there any more"), "{said}");
    let here = Stored::all(&local_root(&respaldo), "out");
    assert!(here.iter().all(|half| !half.path("manifest.json").exists()));
    respaldo.run(&["verify", "out", "--destination", "offsite"]).expect(0);
}
