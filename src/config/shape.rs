//! Holds the merged config against its JSON Schema: unknown keys, missing keys, wrong types; and
//! turns a string from the environment into the number, boolean or list that is wanted. Knows
//! schemas; must not know any key by name.

use serde_json::{Map, Value as Json};

use super::did_you_mean;
use super::layers::Tree;
use crate::fault::{Fault, Result};

/// Checks the whole tree and mends its strings, or names the first key that is wrong.
pub(super) fn fit(tree: &mut Tree, schema: &Json) -> Result<()> {
    let mut root = std::mem::take(&mut tree.root);
    let fitter = Fitter { tree, schema };
    fitter.fit(&mut root, schema, "")?;
    tree.root = root;
    Ok(())
}

struct Fitter<'a> {
    tree: &'a Tree,
    schema: &'a Json,
}

impl<'a> Fitter<'a> {
    fn fit(&self, value: &mut Json, schema: &'a Json, key: &str) -> Result<()> {
        let schema = self.plain(schema);
        if let Json::String(text) = value {
            *value = self.read(text, schema, key)?;
        }
        match value {
            Json::Object(object) if allows(schema, "object") => self.object(object, schema, key),
            Json::Array(items) if allows(schema, "array") => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.fit(item, &schema["items"], &format!("{key}[{index}]"))?;
                }
                Ok(())
            }
            Json::String(text) if allows(schema, "string") => self.choice(text, schema, key),
            Json::Bool(_) if allows(schema, "boolean") => Ok(()),
            Json::Number(number) if number.as_f64().is_some_and(f64::is_finite) => {
                let whole = number.as_i64().filter(|_| allows(schema, "integer"));
                self.range(whole.ok_or_else(|| self.wrong(value, schema, key))?, schema, key)
            }
            _ => Err(self.wrong(value, schema, key)),
        }
    }

    fn object(&self, object: &mut Map<String, Json>, schema: &'a Json, key: &str) -> Result<()> {
        let inside = |name: &str| match key {
            "" => name.to_owned(),
            _ => format!("{key}.{name}"),
        };
        let known = schema["properties"].as_object();
        for (name, value) in object.iter_mut() {
            let below = match known.and_then(|known| known.get(name)) {
                Some(below) => below,
                None if schema["additionalProperties"].is_object() => {
                    &schema["additionalProperties"]
                }
                None => {
                    let known: Vec<&str> =
                        known.iter().flat_map(|known| known.keys()).map(String::as_str).collect();
                    let key = inside(name);
                    let place = self.tree.place(&key);
                    let meant = did_you_mean(name, known.iter().copied());
                    return Err(Fault::usage(format!("unknown key {key}{place}{meant}"))
                        .hint(format!("the keys known here: {}", known.join(", "))));
                }
            };
            self.fit(value, below, &inside(name))?;
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if !object.contains_key(name) {
                let key = inside(name);
                let what = known
                    .and_then(|known| known[name]["description"].as_str())
                    .map_or(String::new(), |what| format!(": {what}"));
                return Err(Fault::usage(format!("{key} is missing{}", self.tree.place(&key)))
                    .hint(format!("add {name}{what}")));
            }
        }
        Ok(())
    }

    /// Reads a string where something else is wanted; other strings stay as they are.
    fn read(&self, text: &str, schema: &Json, key: &str) -> Result<Json> {
        if allows(schema, "array") {
            return Ok(Json::Array(self.list(text, schema, key)));
        }
        let same = Json::String(text.to_owned());
        let read = match text.trim() {
            _ if allows(schema, "string") => return Ok(same),
            number if allows(schema, "integer") => number.parse::<i64>().ok().map(Json::from),
            word if allows(schema, "boolean") => truth(word).map(Json::Bool),
            _ => None,
        };
        read.ok_or_else(|| self.wrong(&same, schema, key))
    }

    /// One string in a file is one item; in the environment it may be several.
    fn list(&self, text: &str, schema: &Json, key: &str) -> Vec<Json> {
        let split = schema["x-split"].as_str().filter(|_| self.tree.is_flat(key));
        let Some(split) = split else { return vec![Json::String(text.to_owned())] };
        if let Ok(Json::Array(items)) = serde_json::from_str(text) {
            return items;
        }
        let items = text.split(split).map(str::trim).filter(|item| !item.is_empty());
        items.map(Json::from).collect()
    }

    fn choice(&self, text: &str, schema: &Json, key: &str) -> Result<()> {
        let choices = choices(schema);
        if choices.is_empty() || choices.contains(&text) {
            return Ok(());
        }
        let place = self.tree.place(key);
        let meant = did_you_mean(text, choices.iter().copied());
        Err(Fault::usage(format!("{key} can't be {text:?}{place}{meant}"))
            .hint(format!("it is one of {}", choices.join(", "))))
    }

    fn range(&self, number: i64, schema: &Json, key: &str) -> Result<()> {
        let (least, most) = (schema["minimum"].as_i64(), schema["maximum"].as_i64());
        let fits = least.is_none_or(|least| number >= least)
            && most.unwrap_or(i64::from(u32::MAX)) >= number;
        if fits {
            return Ok(());
        }
        let place = self.tree.place(key);
        let range = match (least, most) {
            (Some(least), Some(most)) => format!("it is {least} to {most}"),
            (Some(least), None) => format!("it is {least} or more"),
            _ => "the number is too large".to_owned(),
        };
        Err(Fault::usage(format!("{key} can't be {number}{place}")).hint(range))
    }

    fn wrong(&self, value: &Json, schema: &Json, key: &str) -> Fault {
        let hidden = schema["writeOnly"] == true || schema["x-address"] == true;
        let is = match value {
            Json::Object(_) => "a table".to_owned(),
            Json::Array(_) => "a list".to_owned(),
            // A number's spelling is lost by now, and what is no string may still be a secret.
            Json::Number(_) if hidden => "a number".to_owned(),
            Json::Bool(_) if hidden => "true or false without quotes".to_owned(),
            Json::String(_) if hidden => "a string".to_owned(),
            other => other.to_string(),
        };
        let wants = [
            ("object", "a table"),
            ("array", "a string or a list of strings"),
            ("string", "a string"),
            ("integer", "a whole number"),
            ("boolean", "true or false"),
        ];
        let wanted = wants.iter().find(|(kind, _)| allows(schema, kind)).map_or("else", |(_, w)| w);
        let name = key.rsplit('.').next().unwrap_or(key);
        let example = schema["examples"][0].as_str();
        let hint = match (wanted, example) {
            ("a string", Some(example)) => format!("for example: {name} = {example:?}"),
            ("a string", None) => format!("put it in quotes: {name} = \"...\""),
            ("a table", _) => format!("write a section [{key}] or {name} = {{ ... }}"),
            _ => "`respaldo config schema` describes every key".to_owned(),
        };
        let place = self.tree.place(key);
        let key = if key.is_empty() { "the config" } else { key };
        Fault::usage(format!("{key} is {is}{place}, where {wanted} is wanted")).hint(hint)
    }

    /// The schema itself, behind references and behind `null` as the other choice.
    fn plain(&self, schema: &'a Json) -> &'a Json {
        if let Some(name) = schema["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/")) {
            return self.plain(&self.schema["$defs"][name]);
        }
        match schema["anyOf"].as_array().and_then(|of| of.iter().find(|of| of["type"] != "null")) {
            Some(some) => self.plain(some),
            None => schema,
        }
    }
}

fn allows(schema: &Json, kind: &str) -> bool {
    match &schema["type"] {
        Json::Array(kinds) => kinds.iter().any(|of| of == kind),
        Json::String(of) => of == kind,
        _ => kind == "string" && !choices(schema).is_empty(),
    }
}

/// The words that an enumeration allows.
fn choices(schema: &Json) -> Vec<&str> {
    let listed = schema["enum"].as_array().into_iter().flatten();
    let described = schema["oneOf"].as_array().into_iter().flatten().map(|one| &one["const"]);
    listed.chain(described).filter_map(Json::as_str).collect()
}

/// The words that people use for true and false.
pub(super) fn truth(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}
