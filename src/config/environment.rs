//! The only reader of the process's environment. Knows `NAME` and `NAME_FILE`; must not know what
//! any variable means.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::path::Path;

use crate::fault::{Fault, Result};

/// An environment: the process's own, or one that a test made.
pub type Variables = BTreeMap<String, String>;

/// One variable of the process, for the few that are no part of the config (`NO_COLOR`, `PATH`).
/// None where it is not set or not UTF-8.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// All variables of the process that are UTF-8.
pub(super) fn process() -> Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// A value, and the variable that it is owed to: `NAME`, or `NAME_FILE` for a file's content.
#[derive(Clone)]
pub(super) struct Found {
    pub value: String,
    pub variable: String,
}

/// The value of `name`, else the content of the file that `<name>_FILE` names. An empty variable
/// counts as unset, since compose files pass on what is not there as an empty string.
pub(super) fn lookup(variables: &Variables, name: &str) -> Result<Option<Found>> {
    let set = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    let file = format!("{name}_FILE");
    match (set(name), set(&file)) {
        (Some(_), Some(_)) => Err(Fault::usage(format!("both {name} and {file} are set"))
            .hint(format!("unset one of them; {file} is the safer one"))),
        (Some(value), None) => Ok(Some(Found { value: value.clone(), variable: name.to_owned() })),
        (None, Some(path)) => {
            let value = read_secret(&file, Path::new(path))?;
            Ok(Some(Found { value, variable: file }))
        }
        (None, None) => Ok(None),
    }
}

/// The content of a secret's file without its last line end. `key` is what named the file.
pub(super) fn read_secret(key: &str, path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Fault::usage(format!("{key}: the file {} can't be read: {error}", path.display())).hint(
            "put the secret there (docker compose: `secrets:`), readable for the user that runs \
             respaldo",
        )
    })?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Fault::usage(format!("{key}: the file {} is empty", path.display()))
            .hint("put the secret there"));
    }
    Ok(text.to_owned())
}
