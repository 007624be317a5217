//! The house stands as src/lib.rs draws it: imports only go down, doors do not know one another,
//! every room says what it is, and every config that is shipped is one.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::config;
use crate::support::program::Respaldo;
use crate::support::tool;

/// Longer than this, a file is two rooms.
const LINES: usize = 420;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Rust files below a folder, with their paths from the root.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    let root = root();
    let files = walkdir::WalkDir::new(root.join(folder)).sort_by_file_name();
    files
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), text)
        })
        .collect()
}

/// Without what is there for tests alone.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            code += line;
            code.push('\n');
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        // `mod tests;` ends on its own line.
        let ends = |line: &&str| *line == end || line.ends_with(';') && line.contains("mod ");
        let skipped = lines.by_ref().take_while(|line| !ends(line)).count();
        code.push_str(&"\n".repeat(skipped + 2));
    }
    code
}

/// Lines that are no comments, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The floors as the comments of lib.rs number them.
fn floors() -> BTreeMap<String, u32> {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut floors = BTreeMap::new();
    let mut floor = None;
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("// ") {
            floor = comment.split(' ').next().unwrap().parse().ok().or(floor);
        } else if let Some(name) = line.strip_prefix("pub mod ") {
            let floor = floor.unwrap_or_else(|| panic!("{name} is on no floor"));
            floors.insert(name.trim_end_matches(';').to_owned(), floor);
        }
    }
    assert!(floors.len() > 20 && floors["cli"] == 10 && floors["fault"] == 0, "{floors:?}");
    floors
}

/// The rooms that a text names as `crate::room` or in `crate::{room, other::...}`, with lines.
fn rooms_named(text: &str) -> Vec<(usize, String)> {
    let text: String = lines(text).fold(String::new(), |mut text, (number, line)| {
        // Empty lines in place of comments, so that the numbers stay right.
        while text.lines().count() + 1 < number {
            text.push('\n');
        }
        text + line + "\n"
    });
    let mut named = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let line = text[..at].lines().count().max(1);
        let rest = &text[at + "crate::".len()..];
        let word = |text: &str| -> String {
            text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        let Some(group) = rest.strip_prefix('{') else {
            named.push((line, word(rest)));
            continue;
        };
        let mut depth = 1;
        let mut start = 0;
        for (index, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || (depth == 1 && character == ',') {
                named.push((line, word(&group[start..index])));
                start = index + 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    named.retain(|(_, room)| !room.is_empty());
    named
}

#[test]
fn imports_only_go_down_and_doors_do_not_know_one_another() {
    let floors = floors();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (path, text) in rust_files("src") {
        let room = path.strip_prefix("src/").unwrap().split(['/', '.']).next().unwrap().to_owned();
        if room == "lib" || room == "main" {
            continue;
        }
        let own = *floors.get(&room).unwrap_or_else(|| panic!("{path} is in no room of lib.rs"));
        for (line, other) in rooms_named(&text) {
            let Some(&floor) = floors.get(&other) else {
                wrong.push(format!("{path}:{line}: crate::{other} is no room"));
                continue;
            };
            seen += 1;
            // Facts and tools lean on their neighbours; decisions and doors on nobody beside them.
            let down = floor < own || other == room || (floor == own && own < 2);
            if !down {
                wrong.push(format!(
                    "{path}:{line}: {room} (floor {own}) uses {other} (floor {floor})"
                ));
            }
        }
    }
    assert!(seen > 200, "only {seen} imports were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(["alert", "destination", "pipeline", "source"].map(|door| floors[door]), [3; 4]);
}

#[test]
fn the_search_for_imports_finds_them() {
    let text = "//! crate::comment\nuse crate::{one, two::{a, b}, three as x};\n\n\
        fn f() {\n    crate::four::g();\n    // crate::five\n}\nuse crate::{\n    six,\n    seven::Y,\n};\n";
    let named: Vec<(usize, String)> = rooms_named(text);
    let named: Vec<(usize, &str)> =
        named.iter().map(|(line, room)| (*line, room.as_str())).collect();
    assert_eq!(
        named,
        [(2, "one"), (2, "two"), (2, "three"), (5, "four"), (8, "six"), (8, "seven")]
    );
}

#[test]
fn every_file_says_what_it_is_and_is_not_too_long() {
    for (path, text) in [rust_files("src"), rust_files("tests"), rust_files("examples")].concat() {
        assert!(text.starts_with("//! "), "{path} does not open with //!");
        let length = code(&text).trim_end().lines().count();
        assert!(length <= LINES || path.starts_with("tests/"), "{path} has {length} lines");
        let vague = ["util", "utils", "common", "helper", "helpers", "manager", "misc"];
        let parts: Vec<&str> = path.split(['/', '.']).collect();
        assert!(!parts.iter().any(|part| vague.contains(part)), "{path} says nothing");
        assert!(!path.ends_with("/mod.rs"), "{path}: the room's file stands beside its folder");
    }
}

#[test]
fn nothing_panics_on_purpose() {
    let words =
        [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "unreachable!(", "dbg!("];
    let mut wrong = Vec::new();
    for (path, text) in rust_files("src") {
        if path.contains("/tests") {
            continue;
        }
        for (number, line) in lines(&code(&text)) {
            if words.iter().any(|word| line.contains(word)) {
                wrong.push(format!("{path}:{number}: {}", line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_of_the_map_is_there_and_no_other() {
    let floors = floors();
    for (path, _) in rust_files("src") {
        let room = path.strip_prefix("src/").unwrap().split(['/', '.']).next().unwrap().to_owned();
        assert!(floors.contains_key(&room) || ["lib", "main"].contains(&&*room), "{path}");
    }
    for room in floors.keys() {
        assert!(root().join(format!("src/{room}.rs")).is_file(), "{room}");
    }
}

/// Every config that is shipped.
fn shipped() -> Vec<PathBuf> {
    let files = walkdir::WalkDir::new(root().join("config")).sort_by_file_name().into_iter();
    let files: Vec<PathBuf> = files
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    assert!(files.len() >= 4, "{files:?}");
    files
}

/// A machine on which a shipped config's secrets are there.
pub fn machine(text: &str) -> Respaldo {
    config::machine(text)
        .env("RESPALDO_DEMO_DIR", "@DIR@")
        .env("RESPALDO__SERVER__LISTEN", "127.0.0.1:@PORT@")
        .env("DB_PASSWORD", "hunter2")
}

#[test]
fn every_config_that_is_shipped_is_one() {
    for config in shipped() {
        let machine = machine(&fs::read_to_string(&config).unwrap());
        let shown = machine.run(&["config", "show"]).expect(0);
        assert!(shown.stdout.contains("[jobs."), "{}: {}", config.display(), shown.stdout);
        assert!(!shown.all().contains("hunter2"), "{}: {}", config.display(), shown.all());
        // What is shown is a config again.
        machine.write_config(&shown.stdout);
        let twice = machine.run(&["config", "show"]).expect(0).stdout;
        assert_eq!(twice, shown.stdout, "{}", config.display());
    }
}

#[test]
fn the_demos_config_runs() {
    let respaldo = machine(&fs::read_to_string(root().join("config/demo.toml")).unwrap());
    let shop = respaldo.path("shop.sqlite3");
    tool(Command::new("sqlite3").arg(shop).arg("CREATE TABLE t AS SELECT 1"));
    respaldo.write("media/photo.jpg", "photo");
    let daemon = respaldo.daemon();
    daemon.wait_for_logs("is committed", 2);
    let (status, body) = daemon.health();
    assert_eq!((status, body["status"].as_str()), (200, Some("healthy")), "{body}");
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn the_first_config_that_init_writes_is_the_shipped_one() {
    let respaldo = Respaldo::without_config();
    let written = respaldo.run(&["config", "init"]).expect(0).stdout;
    assert_eq!(written, fs::read_to_string(root().join("config/respaldo.example.toml")).unwrap());
    let file = respaldo.path("etc/config.toml");
    let arguments = ["config", "init", file.to_str().unwrap()];
    fs::create_dir(respaldo.path("etc")).unwrap();
    respaldo.run(&arguments).expect(0);
    assert_eq!(fs::read_to_string(&file).unwrap(), written);
    fs::write(&file, "precious").unwrap();
    respaldo.run(&arguments).expect(2);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}
