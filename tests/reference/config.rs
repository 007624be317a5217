//! docs/reference/config.md, from the JSON Schema against which every config is checked.

use std::collections::VecDeque;

use serde_json::Value;

use super::{code, head, table};

/// A key as the page shows it.
pub struct Key {
    pub path: String,
    pub kind: String,
    pub default: String,
    pub meaning: String,
    pub is_secret: bool,
}

/// A table of the config: its path in TOML, what it is, and its keys.
pub struct Section {
    pub path: String,
    pub about: String,
    pub keys: Vec<Key>,
}

pub fn page(schema: &Value) -> String {
    let mut text = head(
        "Config",
        "Every key of the config file. `respaldo config init` prints one to start from, `respaldo config schema` \
         this reference as a JSON\nSchema for your editor, `respaldo config check` says what is wrong with yours. \
         Any key can be set by the environment, with `RESPALDO__`\nand two underscores between levels \
         (`RESPALDO__JOBS__DB__KEEP__LOCAL__DAYS=14`); `\"${NAME}\"` in a string is filled in from the environment, or\n\
         from the file that `NAME_FILE` names. Durations are `90s`, `30m`, `13h`, `7d`; sizes `500MB`, `64GiB`. \
         Where *a list* is wanted, one string will do.",
    );
    for section in sections(schema) {
        let title = match section.path.as_str() {
            "" => "Top level".to_owned(),
            path => code(&format!("[{path}]")),
        };
        text += &format!("\n## {title}\n\n{}\n", section.about);
        let rows: Vec<Vec<String>> = section
            .keys
            .iter()
            .map(|key| {
                vec![code(&key.path), key.kind.clone(), key.default.clone(), key.meaning.clone()]
            })
            .collect();
        text += &table(&["key", "type", "default", "meaning"], &rows);
    }
    text
}

/// Every table, each once, from the outside in.
pub fn sections(schema: &Value) -> Vec<Section> {
    let mut waiting = VecDeque::from([(String::new(), schema)]);
    let mut seen: Vec<&Value> = Vec::new();
    let mut sections = Vec::new();
    while let Some((path, object)) = waiting.pop_front() {
        if seen.contains(&object) {
            continue;
        }
        seen.push(object);
        let (mut keys, mut below_it) = (Vec::new(), Vec::new());
        for (name, written) in object["properties"].as_object().unwrap() {
            let below = |last: &str| match path.as_str() {
                "" => last.to_owned(),
                _ => format!("{path}.{last}"),
            };
            let inside = plain(schema, written);
            let named = &inside["additionalProperties"];
            let items = plain(schema, &inside["items"]);
            if inside["properties"].is_object() {
                below_it.push((below(name), inside));
            } else if named.is_object() && plain(schema, named)["properties"].is_object() {
                below_it.push((below(&format!("{name}.NAME")), plain(schema, named)));
            } else if items["properties"].is_object() {
                below_it.push((below(name), items));
            }
            keys.push(key(schema, object, name, written));
        }
        // What is below a table follows it.
        below_it.into_iter().rev().for_each(|one| waiting.push_front(one));
        sections.push(Section { path, about: one_line(&object["description"]), keys });
    }
    sections
}

fn key(schema: &Value, object: &Value, name: &str, written: &Value) -> Key {
    let inside = plain(schema, written);
    let described = match &written["description"] {
        Value::Null => &inside["description"],
        own => own,
    };
    let text = one_line(described);
    let (meaning, default) = match text.split_once("Default: ") {
        Some((meaning, default)) => (meaning.trim_end(), default.trim_end_matches('.')),
        None => (text.as_str(), ""),
    };
    let mut meaning = meaning.to_owned();
    if !meaning.is_empty() && !meaning.ends_with('.') {
        meaning.push('.');
    }
    let choices = choices(inside);
    if !choices.is_empty() {
        meaning += &format!(" One of {}.", choices.join(", "));
    }
    match (inside["minimum"].as_i64().filter(|least| *least > 0), inside["maximum"].as_i64()) {
        (Some(least), Some(most)) => meaning += &format!(" {least} to {most}."),
        (None, Some(most)) => meaning += &format!(" At most {most}."),
        _ => {}
    }
    let examples = inside["examples"].as_array().into_iter().flatten();
    let examples: Vec<String> = examples
        .map(|example| example.to_string())
        .filter(|example| example.trim_matches('"') != default && !meaning.contains(example))
        .map(|example| code(&example))
        .collect();
    if !examples.is_empty() {
        meaning += &format!(" Such as {}.", examples.join(", "));
    }
    let required =
        object["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    Key {
        path: name.to_owned(),
        kind: kind(schema, inside),
        default: if required { "*required*".to_owned() } else { default.to_owned() },
        meaning: meaning.trim().to_owned(),
        is_secret: inside["writeOnly"] == true,
    }
}

fn kind(schema: &Value, inside: &Value) -> String {
    let is = |kind: &str| {
        inside["type"] == kind
            || inside["type"].as_array().is_some_and(|kinds| kinds.iter().any(|one| one == kind))
    };
    let secret = if inside["writeOnly"] == true { ", secret" } else { "" };
    match () {
        () if is("object") && inside["additionalProperties"].is_object() => {
            let value = plain(schema, &inside["additionalProperties"]);
            let of = if value["properties"].is_object() { "tables" } else { "strings" };
            format!("{of} by name")
        }
        () if is("object") => "table".to_owned(),
        () if is("array") => match plain(schema, &inside["items"])["type"].as_str() {
            Some("object") => "list of tables".to_owned(),
            Some("array") => "list of lists".to_owned(),
            _ => "list".to_owned(),
        },
        () if is("integer") => "number".to_owned(),
        () if is("boolean") => "true or false".to_owned(),
        () => format!("string{secret}"),
    }
}

fn choices(inside: &Value) -> Vec<String> {
    let listed = inside["enum"].as_array().into_iter().flatten().filter(|one| !one.is_null());
    let listed = listed.map(|one| code(one.as_str().unwrap()));
    let told = inside["oneOf"].as_array().into_iter().flatten().map(|one| {
        format!("{} ({})", code(one["const"].as_str().unwrap()), one_line(&one["description"]))
    });
    listed.chain(told).collect()
}

/// Behind a reference, and behind `null` as the other choice.
fn plain<'a>(schema: &'a Value, written: &'a Value) -> &'a Value {
    if let Some(name) = written["$ref"].as_str() {
        return plain(schema, &schema["$defs"][name.trim_start_matches("#/$defs/")]);
    }
    match written["anyOf"].as_array().and_then(|of| of.iter().find(|one| one["type"] != "null")) {
        Some(some) => plain(schema, some),
        None => written,
    }
}

fn one_line(text: &Value) -> String {
    text.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}
