//! An alert as a Slack message through an incoming webhook. Knows Slack's markup and limits; must
//! not let the webhook's address, which is a secret, into any error.

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Notice, escape, http};
use crate::fault::{Fault, Result};
use crate::secret::Secret;

/// An incoming webhook: who knows its address can post.
#[derive(Debug, Clone)]
pub struct Slack {
    pub webhook: Secret,
}

/// Slack takes 3000 characters in a block, and refuses the whole message above that.
const BLOCK: usize = 2900;
/// Of one piece before escaping, which may make it five times as long.
const PIECE: usize = 500;

impl Slack {
    pub(super) async fn send(&self, notice: &Notice) -> Result<()> {
        let request = http::client()?.post(self.webhook.expose()).json(&body(notice));
        let response = request.send().await.map_err(|error| {
            let whole = "the webhook must be a whole address: https://hooks.slack.com/services/...";
            http::unsent(error, "post to Slack", whole, "hooks.slack.com")
        })?;
        if response.status() == StatusCode::OK { Ok(()) } else { Err(refused(response).await) }
    }
}

async fn refused(response: Response) -> Fault {
    let status = response.status();
    let reason = reason(&response.text().await.unwrap_or_default());
    let text = format!("Slack answered {}{reason}", status.as_u16());
    match status.as_u16() {
        408 | 429 | 500.. => Fault::transient(text).hint("Slack is busy; try again later"),
        403 | 404 | 410 => Fault::permanent(text)
            .hint("the webhook is revoked or its channel is gone: make a new one in Slack"),
        400..=499 => Fault::permanent(text).hint("check that the webhook is an incoming webhook"),
        _ => Fault::permanent(text).hint("check that the webhook's address is Slack's own"),
    }
}

/// Slack answers with one word such as `no_service`. Anything else may echo the address.
fn reason(body: &str) -> String {
    let word = body.trim();
    let plain = |c: char| c.is_ascii_lowercase() || c == '_';
    let good = !word.is_empty() && word.len() <= 40 && word.chars().all(plain);
    if good { format!(" ({word})") } else { String::new() }
}

fn body(notice: &Notice) -> Value {
    let summary = clip(&notice.summary);
    let facts = notice
        .facts
        .iter()
        .map(|(label, value)| format!("*{}:* {}", clip(label).trim_end_matches(':'), clip(value)));
    let mut blocks = vec![section(&summary), section(&fit(facts))];
    if let Some(hint) = &notice.hint {
        blocks.push(section(&format!("*Next step:* {}", clip(hint))));
    }
    json!({
        "text": format!("*{}*", clip(&notice.title)),
        "attachments": [{
            "color": notice.tone.colour(),
            "fallback": summary,
            "blocks": blocks,
        }],
    })
}

fn section(text: &str) -> Value {
    // Slack refuses an empty text.
    let text = if text.is_empty() { "-" } else { text };
    json!({ "type": "section", "text": { "type": "mrkdwn", "text": text } })
}

/// Escaped, and no longer than a piece may be.
fn clip(text: &str) -> String {
    match text.char_indices().nth(PIECE) {
        Some((end, _)) => format!("{}…", escape(&text[..end])),
        None => escape(text),
    }
}

/// As many lines as a block takes.
fn fit(lines: impl Iterator<Item = String>) -> String {
    let mut block = String::new();
    for line in lines {
        if block.len() + line.len() > BLOCK {
            block.push('…');
            break;
        }
        block.push_str(&line);
        block.push('\n');
    }
    block.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::notice::tests::notice;
    use super::*;
    use crate::model::EventKind;

    #[test]
    fn a_message_says_it_in_colour_and_escaped() {
        let body = body(&notice(EventKind::Failed));
        assert_eq!(body["text"], "*db failed on web1*");
        let card = &body["attachments"][0];
        assert_eq!(card["color"], "#c0392b");
        let said = card["blocks"][0]["text"]["text"].as_str().unwrap();
        assert_eq!(said, "pg_dump ended with code 1: table &lt;b&gt;&amp;&lt;/b&gt; is gone");
        let facts = card["blocks"][1]["text"]["text"].as_str().unwrap();
        assert!(facts.starts_with("*Job:* db\n*Host:* web1\n"), "{facts}");
        assert_eq!(card["blocks"][2]["text"]["text"], "*Next step:* respaldo show db");
    }

    #[test]
    fn no_block_is_longer_than_slack_takes() {
        let mut notice = notice(EventKind::Partial);
        notice.summary = "&".repeat(10_000);
        notice.facts = vec![("é".repeat(900), "<".repeat(9_000)); 30];
        let body = body(&notice);
        for block in body["attachments"][0]["blocks"].as_array().unwrap() {
            let length = block["text"]["text"].as_str().unwrap().chars().count();
            assert!((1..=3000).contains(&length), "{length}");
        }
    }

    #[test]
    fn only_a_plain_word_of_the_answer_is_repeated() {
        assert_eq!(reason("no_service\n"), " (no_service)");
        assert_eq!(reason("The URL /services/T0/B0/secret was not found"), "");
    }
}
