//! docs/reference says what the program is, and says all of it: it is written from the code
//! (`make reference`), and whoever changes the one without the other is told here.

use std::fs;
use std::path::PathBuf;

use crate::reference::{api, cli, config, files};

#[test]
fn the_reference_is_what_the_code_would_write() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/reference");
    let write = std::env::var_os("RESPALDO_WRITE_REFERENCE").is_some();
    for (name, wanted) in files() {
        let path = folder.join(name);
        if write {
            fs::write(&path, &wanted).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        let differs = found.lines().zip(wanted.lines()).find(|(found, wanted)| found != wanted);
        assert!(
            found == wanted,
            "docs/reference/{name} is old: run `make reference`\n{differs:#?}"
        );
    }
}

#[test]
fn every_key_of_the_config_has_a_sentence_and_every_secret_is_one() {
    let sections = config::sections(&respaldo::config::schema());
    let keys: usize = sections.iter().map(|section| section.keys.len()).sum();
    assert!(sections.len() > 15 && keys > 120, "{} tables, {keys} keys", sections.len());
    for section in &sections {
        assert!(section.about.ends_with('.'), "[{}]: {:?}", section.path, section.about);
        for key in &section.keys {
            let at = format!("{}.{}", section.path, key.path);
            assert!(key.meaning.len() > 5, "{at} says {:?}", key.meaning);
            // Whatever may be given as a file is a secret, and no error shows it.
            let file = section.keys.iter().any(|other| other.path == format!("{}_file", key.path));
            assert!(!file || key.is_secret, "{at} is not shown as a secret");
        }
    }
}

#[test]
fn every_command_and_flag_has_a_sentence() {
    let mut root = respaldo::cli::command();
    root.build();
    let commands = cli::commands(&root);
    assert!(commands.len() >= 30, "{}", commands.len());
    for (path, command) in commands {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(about.len() > 8, "{path} says {about:?}");
        for argument in command.get_arguments() {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.len() > 4, "{path} {} says {help:?}", argument.get_id());
        }
    }
}

#[test]
fn every_operation_names_its_role_and_says_what_it_is() {
    let document = respaldo::api::document();
    let operations = api::operations(&document);
    assert!(operations.len() > 25, "{}", operations.len());
    for (path, method, operation) in operations {
        let role = api::role(operation);
        assert!(
            ["viewer", "operator", "admin"].contains(&role.as_str()),
            "{method} {path}: {role:?}"
        );
        assert!(
            operation["summary"].as_str().is_some_and(|text| text.len() > 5),
            "{method} {path}"
        );
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let said = parameter["description"].as_str().unwrap_or_default();
            assert!(said.len() > 3, "{method} {path}: {parameter}");
        }
    }
}
