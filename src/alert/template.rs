//! A text with places that a message fills: `{{title}}` and its like. Knows how a value is written so
//! that it can't break out of where it stands; must not know HTTP.

use std::fmt;

use serde_json::{Value, json};

use super::Notice;

/// What can stand between the braces.
pub const PLACEHOLDERS: [&str; 10] =
    ["job", "kind", "severity", "title", "summary", "text", "host", "at", "run", "hint"];

/// A template whose placeholders are known. What else is in it may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(&'static str),
}

/// How a value is written in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// As inside a JSON string.
    Json,
    /// As in a form, with `%`.
    Form,
    None,
}

impl Escape {
    /// By the body's content type.
    pub fn of(content_type: &str) -> Self {
        let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/x-www-form-urlencoded" => Self::Form,
            json if json.ends_with("json") => Self::Json,
            _ => Self::None,
        }
    }

    fn write(self, text: &str) -> String {
        match self {
            Self::Json => {
                let quoted = Value::from(text).to_string();
                quoted[1..quoted.len() - 1].to_owned()
            }
            Self::Form => url::form_urlencoded::byte_serialize(text.as_bytes()).collect(),
            Self::None => text.to_owned(),
        }
    }
}

impl Template {
    /// Reads it, or gives the name between braces that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").ok_or_else(|| after.to_owned())?;
            let known = PLACEHOLDERS.into_iter().find(|known| *known == name.trim());
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Value(known.ok_or_else(|| name.trim().to_owned())?));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self(parts))
    }

    pub(super) fn fill(&self, notice: &Notice, escape: Escape) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Value(name) => escape.write(&value(notice, name)),
        };
        self.0.iter().map(part).collect()
    }
}

/// Everything that can be filled in, as one JSON object.
pub(super) fn object(notice: &Notice) -> String {
    let all = PLACEHOLDERS.map(|name| (name.to_owned(), json!(value(notice, name))));
    Value::Object(all.into_iter().collect()).to_string()
}

fn value(notice: &Notice, name: &str) -> String {
    match name {
        "job" => notice.job.clone(),
        "kind" => notice.kind.to_string(),
        "severity" => notice.severity.to_string(),
        "title" => notice.title.clone(),
        "summary" => notice.summary.clone(),
        "text" => notice.text(),
        "host" => notice.host.clone(),
        "at" => notice.at.to_string(),
        "run" => notice.run.clone(),
        "hint" => notice.hint.clone().unwrap_or_default(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::notice::tests::notice;
    use crate::model::EventKind;

    #[test]
    fn values_can_not_break_out_of_where_they_stand() {
        let mut notice = notice(EventKind::Failed);
        notice.summary = "a \"quote\"\nand {{title}} & 100%".into();
        let template = Template::parse(r#"{"text": "{{summary}}", "n": {{run}}}"#).unwrap();
        let filled = template.fill(&notice, Escape::of("application/vnd.x+json; charset=utf-8"));
        let read: Value = serde_json::from_str(&filled).unwrap();
        assert_eq!(read, json!({ "text": "a \"quote\"\nand {{title}} & 100%", "n": 42 }));
        let template = Template::parse("text={{ summary }}").unwrap();
        let filled = template.fill(&notice, Escape::of("application/x-www-form-urlencoded"));
        assert_eq!(filled, "text=a+%22quote%22%0Aand+%7B%7Btitle%7D%7D+%26+100%25");
        assert_eq!(format!("{template:?}"), "***");
        assert_eq!(
            template.fill(&notice, Escape::of("text/plain")),
            format!("text={}", notice.summary)
        );
    }

    #[test]
    fn every_placeholder_is_filled_and_no_other_is_taken() {
        let notice = notice(EventKind::Failed);
        let all: Value = serde_json::from_str(&object(&notice)).unwrap();
        for name in PLACEHOLDERS {
            assert!(!all[name].as_str().unwrap().is_empty(), "{name}: {all}");
        }
        assert_eq!(Template::parse("{{titel}}"), Err("titel".into()));
        assert_eq!(Template::parse("{{title"), Err("title".into()));
        assert!(Template::parse("{ } {title}").is_ok());
    }
}
