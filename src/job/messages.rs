//! What people are told: events become messages in the outbox, and messages are sent until they
//! arrive.

use jiff::SignedDuration;

use super::Site;
use crate::catalog::Message;
use crate::fault::Result;
use crate::model::Event;
use crate::retry::Backoff;

/// How long a claimed message is left to the process that claimed it.
const CLAIM: SignedDuration = SignedDuration::from_secs(120);

impl Site {
    /// Puts an event into the outbox, once for each route.
    pub(super) async fn tell(&self, event: &Event) -> Result<()> {
        for route in &self.routes {
            self.catalog.post(&route.name, event, self.clock.now()).await?;
        }
        Ok(())
    }
}

/// Sends what is due; returns how many messages were sent. What fails is tried again later.
pub async fn send_messages(site: &Site) -> Result<usize> {
    let now = site.clock.now();
    let due = site.catalog.claim_messages(now, now + CLAIM).await?;
    let mut sent = 0;
    for message in due {
        sent += usize::from(send(site, message).await?);
    }
    Ok(sent)
}

async fn send(site: &Site, message: Message) -> Result<bool> {
    let Some(route) = site.routes.iter().find(|route| route.name == message.route) else {
        tracing::warn!("the alert route '{}' is gone; a message for it is dropped", message.route);
        site.catalog.message_sent(message.id, site.clock.now()).await?;
        return Ok(false);
    };
    match route.send(&message.event, &site.host).await {
        Ok(()) => {
            tracing::info!("told '{}': {}", route.name, message.event.summary);
            site.catalog.message_sent(message.id, site.clock.now()).await?;
            Ok(true)
        }
        Err(fault) => {
            let wait = Backoff::MESSAGE.after(message.attempts + 1);
            let next = site.clock.now().checked_add(wait).unwrap_or(site.clock.now());
            let hint = fault.next_step().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
            tracing::error!(
                "could not tell '{}', will try again in {} s: {}{hint}",
                route.name,
                wait.as_secs(),
                fault.chain()
            );
            site.catalog.message_failed(message.id, &fault.chain(), next).await?;
            Ok(false)
        }
    }
}
