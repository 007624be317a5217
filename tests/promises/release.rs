//! A release says which one it is: its version is the tag's, everywhere.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::program::Respaldo;
use crate::support::{temp_folder, tool};

fn script() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/version.sh")
}

#[test]
fn the_version_is_the_tags_and_without_one_cargos() {
    let folder = temp_folder("tagged");
    let version = || tool(Command::new(script()).arg(folder.path()));
    fs::write(
        folder.path().join("Cargo.toml"),
        "[package]\nversion = \"0.1.0\"\n[x]\nversion = \"9\"\n",
    )
    .unwrap();
    assert_eq!(version(), "0.1.0\n");
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=x", "-c", "user.email=x@example.com"]);
        tool(git.args(arguments).current_dir(folder.path()))
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "one"]);
    assert_eq!(version(), "0.1.0\n");
    git(&["tag", "v1.2.3"]);
    git(&["tag", "not-a-version"]);
    assert_eq!(version(), "1.2.3\n");
    git(&["commit", "--quiet", "--allow-empty", "--message", "two"]);
    assert!(version().starts_with("1.2.3-1-g"), "{}", version());
    fs::write(folder.path().join("Cargo.toml"), "[package]\nversion = \"0.1.1\"\n").unwrap();
    assert!(version().trim_end().ends_with("-dirty"), "{}", version());
}

#[test]
fn the_version_that_was_built_in_is_the_one_that_is_said() {
    let wanted = option_env!("RESPALDO_VERSION").filter(|version| !version.is_empty());
    let wanted = wanted.unwrap_or(env!("CARGO_PKG_VERSION"));
    assert_eq!(respaldo::model::VERSION, wanted);
    let said = Respaldo::without_config().run(&["--version"]).expect(0).stdout;
    assert_eq!(said, format!("respaldo {wanted}\n"));
    // Nothing else asks Cargo: a manifest, a metric and a page of a release name the release.
    let files = walkdir::WalkDir::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).into_iter();
    let asking = files
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .filter(|path| fs::read_to_string(path).unwrap().contains("CARGO_PKG_VERSION"));
    let asking: Vec<String> = asking.map(|path| path.display().to_string()).collect();
    assert!(asking.len() == 1 && asking[0].ends_with("src/model.rs"), "{asking:?}");
}

#[test]
fn the_image_is_built_with_its_version() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let dockerfile = fs::read_to_string(root.join("Dockerfile")).unwrap();
    let build = dockerfile.split("\nFROM ").nth(1).unwrap();
    assert!(
        build.contains("ARG VERSION=") && build.contains("RESPALDO_VERSION=\"$VERSION\" cargo")
    );
    let told = Command::new("make").args(["--dry-run", "dist-image"]).current_dir(&root).output();
    let told = String::from_utf8(told.unwrap().stdout).unwrap();
    assert!(told.contains("scripts/version.sh") && told.contains("VERSION=$version"), "{told}");
}
