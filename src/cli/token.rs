//! `respaldo token`: made, listed and ended, whether the daemon runs or not.

use serde_json::json;

use super::args::Token;
use super::{Desk, Exit, output};
use crate::app::App;
use crate::catalog;
use crate::fault::{Fault, Result};
use crate::job::{NewToken, make_token, revoke_token};
use crate::model::{JobName, Role};

pub(super) async fn token(desk: &Desk, wanted: Token) -> Result<Exit> {
    let site = &desk.app.site;
    match wanted {
        Token::Create { name, role, expires, json } => {
            not_in_config(&desk.app, &name, "choose another name")?;
            let made = make_token(site, &site.actor, &name, role, expires).await?;
            show_new(&name, role, &made, json)?;
        }
        Token::List { json } => list(&desk.app, json).await?,
        Token::Revoke { name } => {
            not_in_config(&desk.app, &name, "take it out of [server.tokens] and reload")?;
            revoke_token(site, &site.actor, &name).await?;
            output::say(&format!("token '{name}' opens nothing any more"));
        }
    }
    Ok(Exit::Done)
}

fn not_in_config(app: &App, name: &JobName, hint: &str) -> Result<()> {
    match app.settings.server.has_token(name) {
        true => Err(Fault::usage(format!("token '{name}' is one of the config")).hint(hint)),
        false => Ok(()),
    }
}

fn show_new(name: &JobName, role: Role, made: &NewToken, json: bool) -> Result<()> {
    // The one place where a secret is data: whoever asked for it has to get it.
    let token = made.token.expose();
    if json {
        let expires_at = made.expires_at;
        let made = json!({ "name": name, "role": role, "token": token, "expires_at": expires_at });
        return output::json(&made);
    }
    output::data(&format!("{token}\n"))?;
    let until = made.expires_at.map_or(String::new(), |at| format!(", until {at:.0}"));
    output::say(&format!("token '{name}', {role}{until}; it is not shown again"));
    Ok(())
}

async fn list(app: &App, json: bool) -> Result<()> {
    let made = app.site.catalog.tokens().await?;
    let fixed = &app.settings.server.tokens;
    if json {
        let fixed = fixed.iter().map(|fixed| {
            json!({ "name": fixed.name, "role": fixed.role, "from": "config", "created_at": null,
                "expires_at": null, "used_at": null, "revoked_at": null })
        });
        let made = made.iter().map(|made| {
            json!({ "name": made.name, "role": made.role, "from": "catalog",
                "created_at": made.created_at, "expires_at": made.expires_at,
                "used_at": made.used_at, "revoked_at": made.revoked_at })
        });
        return output::json(&fixed.chain(made).collect::<Vec<_>>());
    }
    let now = app.site.clock.now();
    let at = |at: Option<jiff::Timestamp>| {
        at.map_or("-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
    };
    let state = |made: &catalog::Token| match made.revoked_at {
        Some(_) => "revoked",
        None if made.is_valid(now) => "good",
        None => "over",
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for fixed in fixed {
        let state = "from the config".to_owned();
        let none = || "-".to_owned();
        rows.push(vec![
            fixed.name.to_string(),
            fixed.role.to_string(),
            state,
            none(),
            none(),
            none(),
        ]);
    }
    for made in &made {
        rows.push(vec![
            made.name.to_string(),
            made.role.to_string(),
            state(made).to_owned(),
            at(Some(made.created_at)),
            at(made.expires_at),
            at(made.used_at),
        ]);
    }
    output::table(&["name", "role", "state", "made", "expires", "last used"], rows)
}
