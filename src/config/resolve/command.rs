//! A program whose output is backed up. Knows what makes a command line; must not run it.

use std::collections::BTreeMap;
use std::path::Path;

use super::Desk;
use crate::config::file::FileSource;
use crate::config::settings::Command;
use crate::fault::Result;

pub(super) fn resolve(desk: &mut Desk<'_>, key: &str, written: FileSource) -> Result<Command> {
    let program = words(desk, &format!("{key}.command"), written.command.unwrap_or_default())?;
    let restore = match written.restore_command {
        Some(given) => words(desk, &format!("{key}.restore_command"), given)?,
        None => Vec::new(),
    };
    let own = Path::new(&program[0]).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = written.name.unwrap_or(own);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty()
        || name.len() > 40
        || name.starts_with(['.', '-'])
        || !name.chars().all(plain)
    {
        let key = format!("{key}.name");
        return Err(desk
            .wrong(&key, &name, "it is no name of a file: letters, digits, - and _, at most 40")
            .hint("give the backup a name, such as name = \"mongo\""));
    }
    let extension = written.extension.unwrap_or("bin".into());
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if extension.is_empty() || extension.len() > 16 || !extension.chars().all(letters) {
        return Err(desk
            .wrong(&format!("{key}.extension"), &extension, "it is not the ending of a file's name")
            .hint("for example \"rdb\" or \"archive\", without a dot"));
    }
    let mut env = BTreeMap::new();
    for (name, value) in written.env.unwrap_or_default() {
        let key = format!("{key}.env.{name}");
        let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if !first || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(desk
                .refuse(&key, format!("'{name}' can't be the name of a variable"))
                .hint("letters, digits and _, as in MONGO_PASSWORD"));
        }
        if let Some(secret) = desk.secret(&key, Some(value), None)? {
            env.insert(name, secret);
        }
    }
    Ok(Command { name, extension, words: program, restore, env })
}

/// A program and its arguments.
pub(super) fn words(desk: &Desk<'_>, key: &str, words: Vec<String>) -> Result<Vec<String>> {
    let example = "write a list: [\"/usr/local/bin/program\", \"--flag\"]";
    let Some(program) = words.first().filter(|first| !first.is_empty()) else {
        return Err(desk.refuse(key, "it names no program").hint(example));
    };
    if words.len() == 1 && program.contains(char::is_whitespace) && !Path::new(program).is_file() {
        return Err(desk
            .wrong(key, program, "no shell takes it apart")
            .hint(format!("{example}, or [\"sh\", \"-c\", \"...\"] for a shell")));
    }
    if program.contains('/') && !program.starts_with('/') {
        return Err(desk.wrong(key, program, "its path does not start at the root").hint(example));
    }
    if let Some(word) = words.iter().find(|word| word.contains('\0')) {
        return Err(desk.wrong(key, word, "no argument may hold a zero byte").hint(example));
    }
    Ok(words)
}
