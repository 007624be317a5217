//! Reads the layers and merges them: files in order, then the environment. Knows where each value
//! came from, so that an error can say it; must not know what any key means.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use config::{Config, ConfigError, Source, Value, ValueKind};
use serde_json::Value as Json;

use super::environment::Variables;
use super::interpolate;
use crate::fault::{Fault, Result};

/// Two underscores between levels, so that keys may hold one.
const PREFIX: &str = "RESPALDO__";

/// One layer: keys, which may be dotted paths, to values that know their origin.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer(HashMap<String, Value>);

impl Layer {
    /// Sets a dotted key to a string owed to `variable`; empty for a default.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>, variable: &str) {
        let value = Value::new(Some(&format!("${variable}")), value.into());
        self.0.insert(key.into(), value);
    }

    /// Sets a dotted key to a table without anything in it.
    pub fn set_empty(&mut self, key: impl Into<String>, variable: &str) {
        let none = ValueKind::Table(config::Map::new());
        self.0.insert(key.into(), Value::new(Some(&format!("${variable}")), none));
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> std::result::Result<HashMap<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

/// The merged config, and the origin of each leaf by its dotted key.
#[derive(Default)]
pub(super) struct Tree {
    pub root: Json,
    origins: BTreeMap<String, Origin>,
    /// Where a value without a known origin must be from: the merge forgets that of empty tables.
    only: Option<Origin>,
}

#[derive(Clone)]
enum Origin {
    File(String),
    /// A file's value that is exactly `${NAME}`.
    FileVariable(String, String),
    /// The environment; an empty name stands for a default of environment-only mode.
    Variable(String),
}

impl Tree {
    /// ` (in FILE)` or ` (from the variable NAME)`: what an error says after the key.
    pub fn place(&self, key: &str) -> String {
        match self.origin(key).or(self.only.as_ref()) {
            Some(Origin::File(file) | Origin::FileVariable(file, _)) => format!(" (in {file})"),
            Some(Origin::Variable(name)) if !name.is_empty() => {
                format!(" (from the variable {name})")
            }
            _ => String::new(),
        }
    }

    /// The variable that the value of `key` is wholly owed to.
    pub fn variable(&self, key: &str) -> Option<&str> {
        match self.origins.get(key) {
            Some(Origin::Variable(name) | Origin::FileVariable(_, name)) => {
                Some(name.as_str()).filter(|name| !name.is_empty())
            }
            _ => None,
        }
    }

    /// Whether the value of `key` came from the environment, where lists are one string.
    pub fn is_flat(&self, key: &str) -> bool {
        matches!(self.origins.get(key), Some(Origin::Variable(_) | Origin::FileVariable(..)))
    }

    /// The key's own origin, else that of something inside it, else of what it is in.
    fn origin(&self, key: &str) -> Option<&Origin> {
        let inside = format!("{key}.");
        let own = self.origins.get(key);
        let below = || {
            let mut rest = self.origins.range(inside.clone()..);
            rest.next().filter(|(found, _)| found.starts_with(&inside)).map(|(_, origin)| origin)
        };
        own.or_else(below).or_else(|| self.origin(key.rsplit_once(['.', '['])?.0))
    }
}

/// The layers of `file` and of `config.d/*.toml` beside it, in name order, and their paths.
pub(super) fn files(file: &Path) -> Result<(Vec<Layer>, Vec<PathBuf>)> {
    let mut paths = vec![file.to_owned()];
    let folder = file.parent().unwrap_or(Path::new("")).join("config.d");
    let unreadable = |error| {
        Fault::usage(format!("the folder {} can't be read: {error}", folder.display()))
            .hint("let the user that runs respaldo read it, or remove it")
    };
    match std::fs::read_dir(&folder) {
        Ok(entries) => {
            for entry in entries {
                paths.push(entry.map_err(unreadable)?.path());
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(unreadable(error)),
    }
    paths[1..].sort();
    // A hidden file is an editor's.
    let is_toml = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".toml") && !name.starts_with('.')
    };
    let paths: Vec<PathBuf> = paths.into_iter().filter(|p| p == file || is_toml(p)).collect();
    let layers = paths.iter().map(|path| read(path)).collect::<Result<_>>()?;
    Ok((layers, paths))
}

fn read(path: &Path) -> Result<Layer> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::NotFound => {
                "write one with `respaldo config init`, or name another: --config FILE"
            }
            _ => "name a TOML file that the user who runs respaldo can read",
        };
        Fault::usage(format!("the config {} can't be read: {error}", path.display())).hint(hint)
    })?;
    // The error's own display quotes the line, and that line may hold a password.
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        Fault::usage(format!("{}, line {line}: {}", path.display(), error.message()))
            .hint("strings need quotes in TOML, and each key is given once")
    })?;
    let origin = path.display().to_string();
    Ok(Layer(table.into_iter().map(|(key, value)| (key, from_toml(value, &origin))).collect()))
}

fn from_toml(value: toml::Value, origin: &String) -> Value {
    let kind = match value {
        toml::Value::String(text) => ValueKind::String(text),
        toml::Value::Integer(number) => ValueKind::I64(number),
        toml::Value::Float(number) => ValueKind::Float(number),
        toml::Value::Boolean(is) => ValueKind::Boolean(is),
        toml::Value::Datetime(at) => ValueKind::String(at.to_string()),
        toml::Value::Array(items) => {
            ValueKind::Array(items.into_iter().map(|item| from_toml(item, origin)).collect())
        }
        toml::Value::Table(table) => ValueKind::Table(
            table.into_iter().map(|(key, value)| (key, from_toml(value, origin))).collect(),
        ),
    };
    Value::new(Some(origin), kind)
}

/// The layer of `RESPALDO__A__B=...`: names in lower case, values as they are.
pub(super) fn overrides(variables: &Variables) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in variables {
        // Compose files pass on what is not there as an empty string.
        if let Some(key) = name.strip_prefix(PREFIX).filter(|_| !value.is_empty()) {
            layer.set(key.to_lowercase().replace("__", "."), value, name);
        }
    }
    layer
}

/// Warnings about variables that look like overrides, but have one underscore where two are due.
pub(super) fn near_misses(variables: &Variables, schema: &Json) -> Vec<String> {
    let Some(keys) = schema["properties"].as_object() else { return Vec::new() };
    let starts = |rest: &str, key: &str| {
        rest.strip_prefix(&key.to_uppercase()).is_some_and(|r| r.is_empty() || r.starts_with('_'))
    };
    let meant = |name: &str| {
        name.strip_prefix("RESPALDO_").is_some_and(|rest| keys.keys().any(|key| starts(rest, key)))
    };
    variables
        .keys()
        .filter(|name| meant(name))
        .map(|name| {
            format!("the variable {name} is ignored: config keys have two underscores between levels, as in {PREFIX}SERVER__LISTEN")
        })
        .collect()
}

/// Merges `base` and then `overrides`, and fills in `${NAME}` where a file wrote it.
pub(super) fn merge(
    base: Vec<Layer>,
    files: &[PathBuf],
    overrides: Layer,
    variables: &Variables,
) -> Result<Tree> {
    let plain = overrides.0.is_empty();
    let mut builder = Config::builder();
    for layer in base {
        builder = builder.add_source(layer);
    }
    let merged = builder.add_source(overrides).build().map_err(|error| {
        Fault::usage("the layers of the config don't fit together").cause(error)
    })?;
    let mut tree = Tree::default();
    if let ([file], true) = (files, plain) {
        tree.only = Some(Origin::File(file.display().to_string()));
    }
    tree.root = plant(merged.cache, "", variables, &mut tree)?;
    Ok(tree)
}

fn plant(value: Value, key: &str, variables: &Variables, tree: &mut Tree) -> Result<Json> {
    let origin = value.origin().map(|origin| match origin.strip_prefix('$') {
        Some(name) => Origin::Variable(name.to_owned()),
        None => Origin::File(origin.to_owned()),
    });
    if let Some(origin) = origin.clone().filter(|_| !matches!(value.kind, ValueKind::Table(_))) {
        tree.origins.insert(key.to_owned(), origin);
    }
    Ok(match value.kind {
        ValueKind::Table(table) => {
            let mut object = serde_json::Map::new();
            // In order, so that of several errors the same one is always the first.
            for (name, value) in BTreeMap::from_iter(table) {
                let inside = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                object.insert(name, plant(value, &inside, variables, tree)?);
            }
            Json::Object(object)
        }
        ValueKind::Array(items) => {
            let plant_one =
                |(index, item)| plant(item, &format!("{key}[{index}]"), variables, tree);
            Json::Array(items.into_iter().enumerate().map(plant_one).collect::<Result<_>>()?)
        }
        ValueKind::String(text) => match origin {
            Some(Origin::File(file)) => {
                if let Some(name) = interpolate::whole(&text) {
                    let origin = Origin::FileVariable(file.clone(), name.to_owned());
                    tree.origins.insert(key.to_owned(), origin);
                }
                let place = format!("{key} (in {file})");
                Json::String(interpolate::fill(&text, &place, variables)?)
            }
            // What the environment says is meant as it is: a password may hold `${`.
            _ => Json::String(text),
        },
        ValueKind::Boolean(is) => Json::Bool(is),
        ValueKind::I64(number) => Json::from(number),
        ValueKind::Float(number) => Json::from(number),
        // Neither TOML nor the environment makes the other kinds.
        _ => Json::Null,
    })
}
