//! docs/reference/api.md, from the OpenAPI document.

use serde_json::{Map, Value};

use super::{code, head, table};

pub fn page(document: &Value) -> String {
    let mut text = head(
        "API",
        "What `GET /api/v1/openapi.json` says, to be read. Send a token as `Authorization: Bearer TOKEN`; each \
         operation names the role that it takes.\nA refusal is a [`Problem`](#problem). How to get a token, and \
         examples with curl: [api.md](../api.md). Without a token: `/health`,\n`/health/JOB`, `/livez`, `/readyz` \
         and `/metrics`, see [monitoring](../monitoring.md#health).\n\n## Operations",
    );
    for (path, method, operation) in operations(document) {
        text += &format!("\n### `{} {path}`\n\n", method.to_uppercase());
        text += &format!("{}\n\n* role: {}\n", sentence(operation), role(operation));
        if let Some(body) = operation["requestBody"]["content"].as_object() {
            text += &format!("* takes: {}\n", content(body));
        }
        for (status, answer) in operation["responses"].as_object().unwrap() {
            if status.starts_with('4') && status.ends_with("XX") || status == "503" {
                continue;
            }
            let what = answer["content"].as_object().map(content).unwrap_or_default();
            let said = answer["description"].as_str().unwrap_or_default();
            let told = [what, said.to_owned()].into_iter().filter(|one| !one.is_empty());
            text += &format!("* {status}: {}\n", told.collect::<Vec<_>>().join(", "));
        }
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let rows: Vec<Vec<String>> = parameters.map(parameter).collect();
        text += &table(&["parameter", "in", "type", "meaning"], &rows);
    }
    text += "\n## Shapes\n";
    for (name, shape) in document["components"]["schemas"].as_object().unwrap() {
        text += &format!("\n### {name}\n\n");
        let about = one_line(&shape["description"]);
        if !about.is_empty() {
            text += &format!("{about}\n");
        }
        let required: Vec<&str> =
            shape["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let fields = shape["properties"].as_object().into_iter().flatten();
        let rows: Vec<Vec<String>> = fields
            .map(|(field, inside)| {
                let optional =
                    if required.contains(&field.as_str()) { "" } else { ", may be absent" };
                vec![
                    code(field),
                    format!("{}{optional}", kind(inside)),
                    one_line(&inside["description"]),
                ]
            })
            .collect();
        text += &table(&["field", "type", "meaning"], &rows);
        if rows.is_empty() {
            text += &format!("{}\n", kind(shape));
        }
    }
    text
}

/// Every operation: path, method, and what the document says.
pub fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    });
    operations.collect()
}

fn sentence(operation: &Value) -> String {
    let both = ["summary", "description"].map(|key| one_line(&operation[key]));
    both.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The scope of its token.
pub fn role(operation: &Value) -> String {
    let schemes = operation["security"].as_array().into_iter().flatten();
    let scopes = schemes.flat_map(|scheme| scheme["token"].as_array().into_iter().flatten());
    scopes.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

fn parameter(parameter: &Value) -> Vec<String> {
    let required = if parameter["required"] == true { "" } else { ", optional" };
    vec![
        code(parameter["name"].as_str().unwrap()),
        parameter["in"].as_str().unwrap().to_owned(),
        format!("{}{required}", kind(&parameter["schema"])),
        one_line(&parameter["description"]),
    ]
}

fn content(types: &Map<String, Value>) -> String {
    let each = types.iter().map(|(media, inside)| match media.as_str() {
        "application/json" => kind(&inside["schema"]),
        media => code(media),
    });
    each.collect::<Vec<_>>().join(" or ")
}

fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        return format!("[`{name}`](#{})", name.to_lowercase());
    }
    for several in ["oneOf", "anyOf", "allOf"] {
        if let Some(all) = schema[several].as_array() {
            let each: Vec<String> = all.iter().map(kind).collect();
            return each.join(" or ");
        }
    }
    if let Some(choices) = schema["enum"].as_array() {
        let each: Vec<String> = choices.iter().filter_map(Value::as_str).map(code).collect();
        return each.join(", ");
    }
    match &schema["type"] {
        Value::Array(kinds) => {
            let each: Vec<String> = kinds
                .iter()
                .map(|one| match one.as_str() {
                    Some("array") => list(schema),
                    one => one.unwrap_or_default().to_owned(),
                })
                .collect();
            each.join(" or ")
        }
        Value::String(one) if one == "array" => list(schema),
        Value::String(one) => match schema["format"].as_str() {
            Some("date-time") => "time".to_owned(),
            _ => one.clone(),
        },
        _ => "any JSON".to_owned(),
    }
}

fn list(schema: &Value) -> String {
    format!("list of {}", kind(&schema["items"]))
}

fn one_line(text: &Value) -> String {
    text.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}
