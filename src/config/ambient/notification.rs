//! The notification URLs of shoutrrr, as docker-volume-backup takes them: one each for mail and for
//! what can be reached by a webhook. Knows their spelling; must not let one into an error, for they
//! hold tokens.

use serde_json::json;
use url::Url;

use crate::config::address::{self, Address};
use crate::config::resolve::alert::is_mailbox;
use crate::config::shape;

/// One way to tell people.
pub(super) enum Message {
    Slack { webhook: String },
    Webhook { url: String, body: Option<String> },
    Mail { smtp: Address, password: Option<String>, from: String, to: String },
}

type Parsed = Result<Message, String>;

/// The URLs of a list. One with a comma may be percent-encoded as a whole; addresses after a comma
/// belong to the URL before.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let whole = match part.contains("://") {
            true => part.to_owned(),
            false => address::decode(part).unwrap_or_default(),
        };
        match urls.last_mut() {
            Some(last) if !whole.contains("://") => {
                last.push(',');
                last.push_str(part);
            }
            _ => urls.push(whole),
        }
    }
    urls
}

pub(super) fn parse(text: &str) -> Parsed {
    if let Some(url) = text.strip_prefix("generic+") {
        return Ok(Message::Webhook { url: url.to_owned(), body: None });
    }
    let url = Url::parse(text).map_err(|_| "it is not a URL".to_owned())?;
    match url.scheme() {
        "smtp" => mail(&url),
        "slack" => slack(&url),
        "generic" => generic(&url),
        "discord" => discord(&url),
        "telegram" => telegram(&url),
        "gotify" => gotify(&url),
        "ntfy" => ntfy(&url),
        other => Err(format!("respaldo knows no {other}://, but any webhook by generic+https://")),
    }
}

/// The value of a parameter, whose name may be written in any case, by one of its names.
fn parameter(url: &Url, names: &[&str]) -> Option<String> {
    let mut pairs = url.query_pairs();
    pairs
        .find(|(name, _)| names.iter().any(|n| n.eq_ignore_ascii_case(name)))
        .map(|(_, v)| v.into())
}

fn truth(url: &Url, name: &str) -> Option<bool> {
    parameter(url, &[name]).and_then(|word| shape::truth(&word))
}

/// `https` unless the URL says otherwise, and the host with its port.
fn place(url: &Url) -> Result<String, String> {
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or("it names no host")?;
    let scheme = if truth(url, "disabletls") == Some(true) { "http" } else { "https" };
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    Ok(format!("{scheme}://{host}{port}"))
}

fn user(url: &Url) -> Result<Option<String>, String> {
    address::decode(url.username()).map(|user| Some(user).filter(|user| !user.is_empty()))
}

fn mail(url: &Url) -> Parsed {
    let user = user(url)?;
    let password = url.password().map(address::decode).transpose()?;
    let encryption = parameter(url, &["encryption"]).unwrap_or_default().to_lowercase();
    let start_tls = truth(url, "usestarttls").or(truth(url, "starttls")).unwrap_or(user.is_some());
    let implicit =
        encryption == "implicittls" || encryption != "explicittls" && url.port() == Some(465);
    let plain = encryption == "none" || encryption != "explicittls" && !start_tls;
    let (scheme, usual, query) = match (implicit, plain) {
        (true, _) => ("smtps", 465, Vec::new()),
        (false, true) => ("smtp", 25, vec![("tls".to_owned(), "none".to_owned())]),
        (false, false) => ("smtp", 25, Vec::new()),
    };
    let smtp = Address {
        scheme: scheme.into(),
        user,
        password: None,
        host: url.host_str().unwrap_or_default().to_owned(),
        port: Some(url.port().unwrap_or(usual)),
        path: String::new(),
        query,
    };
    let mailboxes = |names: &[&str]| {
        let text = parameter(url, names).unwrap_or_default();
        let good = text.split(',').all(|one| is_mailbox(one.trim()));
        good.then_some(text).ok_or_else(|| format!("{} is not a mail address", names[0]))
    };
    Ok(Message::Mail {
        smtp,
        password: password.filter(|password| !password.is_empty()),
        from: mailboxes(&["fromAddress", "from"])?,
        to: mailboxes(&["toAddresses", "to"])?,
    })
}

/// `slack://hook:A-B-C@webhook`, or `slack://name@A/B/C` of before.
fn slack(url: &Url) -> Parsed {
    let parts: Vec<&str> = match (url.username(), url.password()) {
        ("hook", Some(token)) => token.split('-').collect(),
        _ => url.host_str().into_iter().chain(url.path().split('/').skip(1)).collect(),
    };
    let plain = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric());
    match parts.as_slice() {
        [team, bot, token] if parts.iter().all(plain) => Ok(Message::Slack {
            webhook: format!("https://hooks.slack.com/services/{team}/{bot}/{token}"),
        }),
        _ => Err("only Slack's incoming webhooks can be posted to, not a bot's token".into()),
    }
}

fn generic(url: &Url) -> Parsed {
    const OWN: [&str; 7] = [
        "disabletls",
        "template",
        "contenttype",
        "method",
        "titlekey",
        "messagekey",
        "requestmethod",
    ];
    let mut target = Url::parse(&format!("{}{}", place(url)?, url.path()))
        .map_err(|_| "it is not a URL".to_owned())?;
    for (name, value) in url.query_pairs() {
        let known = OWN.iter().any(|own| own.eq_ignore_ascii_case(&name));
        if name.starts_with(['@', '$']) {
            return Err("its headers and further keys need a config".into());
        }
        if !known {
            target.query_pairs_mut().append_pair(name.strip_prefix('_').unwrap_or(&name), &value);
        }
    }
    let body =
        parameter(url, &["template"]).filter(|template| template.eq_ignore_ascii_case("json"));
    let key = |name, usual: &str| parameter(url, &[name]).unwrap_or(usual.to_owned());
    let (title, message) = (key("titlekey", "title"), key("messagekey", "message"));
    let body = body.map(|_| json!({ title: "{{title}}", message: "{{text}}" }).to_string());
    Ok(Message::Webhook { url: target.into(), body })
}

fn discord(url: &Url) -> Parsed {
    let (token, webhook) = (url.username(), url.host_str().unwrap_or_default());
    if token.is_empty() || webhook.is_empty() {
        return Err("it looks like discord://TOKEN@WEBHOOK".into());
    }
    Ok(Message::Webhook {
        url: format!("https://discord.com/api/webhooks/{webhook}/{token}"),
        body: Some(json!({ "content": "{{text}}" }).to_string()),
    })
}

fn telegram(url: &Url) -> Parsed {
    let chats = parameter(url, &["chats", "channels"]).unwrap_or_default();
    let (bot, Some(token)) = (url.username(), url.password()) else {
        return Err("it looks like telegram://TOKEN@telegram?chats=@channel".into());
    };
    if chats.is_empty() || chats.contains(',') {
        return Err("it names no chat, or several: write a URL for each".into());
    }
    Ok(Message::Webhook {
        url: format!("https://api.telegram.org/bot{bot}:{token}/sendMessage"),
        body: Some(json!({ "chat_id": chats, "text": "{{text}}" }).to_string()),
    })
}

fn gotify(url: &Url) -> Parsed {
    let path = url.path().trim_matches('/');
    let (before, token) =
        path.rsplit_once('/').map_or(("", path), |(before, token)| (before, token));
    if token.is_empty() {
        return Err("it looks like gotify://HOST/TOKEN".into());
    }
    let before = if before.is_empty() { String::new() } else { format!("/{before}") };
    Ok(Message::Webhook {
        url: format!("{}{before}/message?token={token}", place(url)?),
        body: Some(json!({ "title": "{{title}}", "message": "{{text}}" }).to_string()),
    })
}

fn ntfy(url: &Url) -> Parsed {
    let topic = url.path().trim_matches('/');
    if topic.is_empty() || !url.username().is_empty() {
        return Err("only ntfy://HOST/TOPIC without a user can be posted to".into());
    }
    let scheme = parameter(url, &["scheme"]).unwrap_or("https".into());
    let place = place(url)?;
    let host = place.split_once("://").map_or("", |(_, host)| host);
    Ok(Message::Webhook {
        url: format!("{scheme}://{host}/"),
        body: Some(
            json!({ "topic": topic, "title": "{{title}}", "message": "{{text}}" }).to_string(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(text: &str) -> (String, String) {
        match parse(text) {
            Ok(Message::Webhook { url, body }) => (url, body.unwrap_or_default()),
            _ => panic!("{text}"),
        }
    }

    #[test]
    fn what_shoutrrr_takes_becomes_a_webhook() {
        for (text, url, body) in [
            ("generic+https://h.example.com/a?b=c", "https://h.example.com/a?b=c", ""),
            ("generic+http://h.example.com/a", "http://h.example.com/a", ""),
            (
                "generic://h.example.com:81/a?disabletls=yes&x=1",
                "http://h.example.com:81/a?x=1",
                "",
            ),
            (
                "generic://h.example.com/a?template=json&_method=x&titleKey=t",
                "https://h.example.com/a?method=x",
                r#"{"message":"{{text}}","t":"{{title}}"}"#,
            ),
            ("discord://To-ken_1@42", "https://discord.com/api/webhooks/42/To-ken_1", "content"),
            (
                "telegram://110:AAHdq_x@telegram?chats=@ops",
                "https://api.telegram.org/bot110:AAHdq_x/sendMessage",
                r#""chat_id":"@ops""#,
            ),
            (
                "gotify://g.example.com:443/p/Tok",
                "https://g.example.com:443/p/message?token=Tok",
                "title",
            ),
            ("ntfy://ntfy.sh/ops?scheme=https", "https://ntfy.sh/", r#""topic":"ops""#),
        ] {
            let (made, template) = webhook(text);
            assert_eq!(made, url, "{text}");
            assert!(template.contains(body), "{text}: {template}");
        }
    }

    #[test]
    fn both_ways_to_write_a_slack_webhook_are_known() {
        for text in
            ["slack://hook:T0a-B0b-XyZ@webhook", "slack://T0a/B0b/XyZ", "slack://bot@T0a/B0b/XyZ"]
        {
            let Ok(Message::Slack { webhook }) = parse(text) else { panic!("{text}") };
            assert_eq!(webhook, "https://hooks.slack.com/services/T0a/B0b/XyZ");
        }
        assert!(parse("slack://xoxb:1-2-abc@C01").is_err());
    }

    #[test]
    fn mail_keeps_its_encryption() {
        let mail = |text: &str| match parse(text) {
            Ok(Message::Mail { smtp, password, from, to }) => (smtp.show(), password, from, to),
            Ok(_) => panic!("{text}"),
            Err(why) => panic!("{text}: {why}"),
        };
        let whole =
            "smtp://me%40x.pe:p%40ss@mail:587/?fromAddress=a@x.pe&toAddresses=b@x.pe,c@x.pe";
        let (smtp, password, from, to) = mail(whole);
        assert_eq!(
            (smtp.as_str(), password.as_deref()),
            ("smtp://me%40x.pe@mail:587", Some("p@ss"))
        );
        assert_eq!((from.as_str(), to.as_str()), ("a@x.pe", "b@x.pe,c@x.pe"));
        let to = "from=a@x.pe&to=b@x.pe";
        assert_eq!(mail(&format!("smtp://u:p@mail:465/?{to}")).0, "smtps://u@mail:465");
        assert_eq!(
            mail(&format!("smtp://u:p@mail/?Encryption=ImplicitTLS&{to}")).0,
            "smtps://u@mail:465"
        );
        assert_eq!(mail(&format!("smtp://mail:1025/?{to}")).0, "smtp://mail:1025?tls=none");
        assert_eq!(
            mail(&format!("smtp://u:p@mail:25/?useStartTLS=no&{to}")).0,
            "smtp://u@mail:25?tls=none"
        );
        assert!(parse("smtp://mail/?from=a@x.pe&to=ops").is_err());
    }

    #[test]
    fn a_list_is_taken_apart_where_its_urls_begin() {
        let whole = "smtp://m/?to=a@x.pe,b@x.pe , slack%3A%2F%2FA%2FB%2FC,generic+https://h/x";
        let urls = split(whole);
        assert_eq!(urls, ["smtp://m/?to=a@x.pe,b@x.pe", "slack://A/B/C", "generic+https://h/x"]);
        for odd in ["pushover://shh@x", "nothing", "telegram://shh:shh@telegram"] {
            let why = parse(odd).err().unwrap();
            assert!(!why.contains("shh"), "{why}");
        }
    }
}
