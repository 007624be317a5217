//! `respaldo alert`: tries the ways to tell people.

use super::{Exit, args, output};
use crate::alert::Route;
use crate::app::{App, person};
use crate::clock::Clock;
use crate::config::Loaded;
use crate::fault::{Fault, Result};
use crate::job::try_routes;

pub(super) async fn test(loaded: &Loaded, clock: Clock, wanted: &args::AlertTest) -> Result<Exit> {
    let app = App::open(loaded, clock, person()).await?;
    let all = &app.site.routes;
    let is_wanted = |route: &&Route| wanted.name.as_ref().is_none_or(|name| *name == route.name);
    let routes: Vec<&Route> = all.iter().filter(is_wanted).collect();
    if routes.is_empty() {
        return Err(none(wanted.name.as_deref(), all));
    }
    let tried = try_routes(&app.site, &routes).await;
    if wanted.json {
        output::json(&tried)?;
    }
    for tried in &tried {
        match &tried.error {
            None => output::say(&format!("{} ({}): it arrived", tried.route, tried.channel)),
            Some(error) => {
                output::say(&format!("{} ({}): {error}", tried.route, tried.channel));
                tried.hint.iter().for_each(|hint| output::say(&format!("hint: {hint}")));
            }
        }
    }
    Ok(if tried.iter().all(|tried| tried.ok) { Exit::Done } else { Exit::Failed })
}

fn none(name: Option<&str>, all: &[Route]) -> Fault {
    let names: Vec<&str> = all.iter().map(|route| route.name.as_str()).collect();
    match name {
        Some(name) if !names.is_empty() => Fault::usage(format!("there is no [alerts.{name}]"))
            .hint(format!("the config has: {}", names.join(", "))),
        _ => Fault::usage("the config names no way to tell people")
            .hint("add a section [alerts.NAME] with email, slack, webhook or heartbeat"),
    }
}
