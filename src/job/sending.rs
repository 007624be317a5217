//! The outbox emptied: each message goes out by its route until it arrives, within what a route may
//! say in an hour. Knows claims and retries; must not know how a message looks.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Site;
use crate::alert::Route;
use crate::attention::{Portion, portion};
use crate::catalog::Message;
use crate::fault::{Fault, Result};
use crate::model::{Event, EventKind};
use crate::retry::Backoff;

/// How long a claimed message is left to the process that claimed it; longer than [`SENDING`].
const CLAIM: SignedDuration = SignedDuration::from_secs(120);
/// How long one message may take, however many addresses it goes to.
const SENDING: Duration = Duration::from_secs(90);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// What could not be told within this time is told no more.
const GIVE_UP: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A ping that a backup begins says when it began.
const STALE: SignedDuration = SignedDuration::from_secs(60);

/// Sends what is due; returns how many messages were sent. What fails is tried again later. A route
/// that hangs keeps no other one.
pub async fn send_messages(site: &Site) -> Result<usize> {
    let now = site.clock.now();
    let mut routes: BTreeMap<String, Vec<Message>> = BTreeMap::new();
    for message in site.catalog.claim_messages(now, now + CLAIM).await? {
        routes.entry(message.route.clone()).or_default().push(message);
    }
    let sent = join_all(routes.into_iter().map(|(name, due)| send_due(site, name, due))).await;
    let sent = sent.into_iter().sum::<Result<usize>>()?;
    if sent > 0 {
        site.catalog.forget_sent(now - GIVE_UP).await?;
    }
    Ok(sent)
}

async fn send_due(site: &Site, name: String, due: Vec<Message>) -> Result<usize> {
    let Some(route) = site.routes.iter().find(|route| route.name == name) else {
        tracing::warn!(
            "the alert route '{name}' is gone; {} messages for it are dropped",
            due.len()
        );
        for message in due {
            site.catalog.drop_message(message.id).await?;
        }
        return Ok(0);
    };
    let mut batches: Vec<Vec<Message>> = Vec::new();
    for message in due {
        if is_worth_sending(site, route, &message).await? {
            batches.push(vec![message]);
        } else {
            site.catalog.drop_message(message.id).await?;
        }
    }
    if !route.is_heartbeat() {
        batches = within_the_hour(site, route, batches.concat()).await?;
    }
    let mut sent = 0;
    let mut batches = batches.into_iter();
    while let Some(batch) = batches.next() {
        match send(site, route, batch).await? {
            Sent::Arrived => sent += 1,
            Sent::Refused => {}
            Sent::Later(next) => {
                // The others would fail as well, and each would take its time.
                for message in batches.by_ref().flatten() {
                    site.catalog.message_waits(message.id, next, false).await?;
                }
            }
        }
    }
    Ok(sent)
}

async fn is_worth_sending(site: &Site, route: &Route, message: &Message) -> Result<bool> {
    let now = site.clock.now();
    let event = &message.event;
    if now.duration_since(message.posted_at) > GIVE_UP {
        tracing::error!("gave up telling '{}' after 7 days: {}", route.name, event.summary);
        return Ok(false);
    }
    if !route.is_heartbeat() {
        return Ok(true);
    }
    // What a heartbeat knows of a job is its last ping.
    let is_stale = event.kind == EventKind::Started && now.duration_since(event.at) > STALE;
    Ok(!is_stale && (message.attempts == 0 || !site.catalog.is_superseded(message).await?))
}

/// What goes out now, message by message; the others wait.
async fn within_the_hour(
    site: &Site,
    route: &Route,
    mut due: Vec<Message>,
) -> Result<Vec<Vec<Message>>> {
    let now = site.clock.now();
    let mut sent = site.catalog.sent_since(&route.name, now - HOUR).await?;
    // Of before a clock was set back.
    sent.retain(|at| *at <= now);
    let has_waited = due.iter().any(|message| message.was_limited);
    let count = match portion(due.len(), has_waited, sent.len(), route.per_hour) {
        Portion::Together => return Ok(vec![due]),
        Portion::Each(count) => count,
    };
    let opens = sent.first().copied().unwrap_or(now) + HOUR;
    let waiting = due.split_off(count);
    if !waiting.is_empty() {
        tracing::warn!(
            "'{}' was told {} things within the hour; {} more wait",
            route.name,
            sent.len() + count,
            waiting.len()
        );
    }
    for message in waiting {
        site.catalog.message_waits(message.id, opens, true).await?;
    }
    Ok(due.into_iter().map(|message| vec![message]).collect())
}

enum Sent {
    Arrived,
    /// Not this one, but another may arrive.
    Refused,
    /// The route is down until then.
    Later(Timestamp),
}

/// Sends messages as one.
async fn send(site: &Site, route: &Route, batch: Vec<Message>) -> Result<Sent> {
    let mut ours = Vec::new();
    for mut message in batch {
        if site.catalog.keep_claim(&mut message, site.clock.now() + CLAIM).await? {
            ours.push(message);
        }
    }
    let Some(first) = ours.first() else { return Ok(Sent::Refused) };
    let events: Vec<Event> = ours.iter().map(|message| message.event.clone()).collect();
    let said = match events.as_slice() {
        [event] => event.summary.clone(),
        several => format!("{} things at once", several.len()),
    };
    let now = || site.clock.now();
    match in_time(route, &events, &site.host).await {
        Ok(()) => {
            tracing::info!("told '{}': {said}", route.name);
            for message in &ours {
                let part_of = (message.id != first.id).then_some(first.id);
                site.catalog.message_sent(message.id, part_of, now()).await?;
            }
            Ok(Sent::Arrived)
        }
        Err(fault) => {
            let wait = Backoff::MESSAGE.after(first.attempts + 1);
            let next = now().checked_add(wait).unwrap_or(now());
            let hint = fault.next_step().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
            tracing::error!(
                "could not tell '{}', will try again in {} s: {}{hint}",
                route.name,
                wait.as_secs(),
                fault.chain()
            );
            for message in &ours {
                site.catalog.message_failed(message.id, &fault.chain(), next).await?;
            }
            Ok(if fault.is_transient() { Sent::Later(next) } else { Sent::Refused })
        }
    }
}

async fn in_time(route: &Route, events: &[Event], host: &str) -> Result<()> {
    match tokio::time::timeout(SENDING, route.send(events, host)).await {
        Ok(sent) => sent,
        Err(_) => Err(Fault::transient(format!("it took longer than {SENDING:?}"))
            .hint("the other side answers very slowly; look at it")),
    }
}

/// What came of trying a route; the shape of `alert test --json`.
#[derive(Debug, Serialize)]
pub struct Tried {
    pub route: String,
    pub channel: &'static str,
    pub ok: bool,
    pub error: Option<String>,
    pub hint: Option<String>,
}

/// Sends one message by each of the routes, past the outbox.
pub async fn try_routes(site: &Site, routes: &[&Route]) -> Vec<Tried> {
    let summary = "this is a test: whoever reads it hears of trouble too";
    let event = Event {
        hint: Some("nothing has to be done".into()),
        ..Event::new(EventKind::Test, None, site.clock.now(), summary)
    };
    let tries = routes.iter().map(async |route| {
        let sent = in_time(route, std::slice::from_ref(&event), &site.host).await;
        let fault = sent.err();
        Tried {
            route: route.name.clone(),
            channel: route.channel.as_str(),
            ok: fault.is_none(),
            hint: fault.as_ref().and_then(|fault| fault.next_step()).map(str::to_owned),
            error: fault.map(|fault| fault.chain()),
        }
    });
    join_all(tries).await
}
