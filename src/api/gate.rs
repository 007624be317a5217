//! Whether a token is one, and how often one address may be wrong about it. Knows tokens of the config
//! and of the catalog; must not know headers or routes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use jiff::SignedDuration;

use super::access::{ANONYMOUS, Caller};
use super::problem::Problem;
use crate::app::App;
use crate::clock::Stopwatch;
use crate::fault::{Fault, Result};
use crate::job::{is_same_digest, token_digest};
use crate::model::{Action, Actor, AuditOutcome, Deed, Role};

/// Wrong tokens that an address may send in a minute.
const TRIES: u32 = 10;
/// Addresses that are told from one another; the others share one count.
const ADDRESSES: usize = 10_000;
/// Whom the audit names in a period; what more there are are too many for a page as well.
const ACTORS: usize = 500;
/// Longer than any token.
const LONGEST: usize = 512;
/// How long the catalog may take.
const ANSWER: Duration = Duration::from_secs(5);
/// A token's last use is noted at most so often.
const NOTED: SignedDuration = SignedDuration::from_secs(60);

/// What came with a request.
#[derive(Clone, Copy)]
pub(super) enum Given<'a> {
    Nothing,
    Header(&'a str),
    Cookie(&'a str),
}

/// Why somebody is not let in.
#[derive(Debug)]
pub(super) enum Refusal {
    /// No token came.
    Nobody,
    /// It is none, or is no longer.
    Wrong,
    /// Too many wrong ones came from there.
    TooMany { seconds: u64 },
    /// The catalog could not be asked.
    Unknown(String),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let unauthorized = |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, detail);
        match refusal {
            Refusal::Nobody => unauthorized("this needs a token")
                .hint("send `Authorization: Bearer TOKEN`; `respaldo token create` makes one"),
            Refusal::Wrong => unauthorized("this token opens nothing")
                .hint("it may be over or revoked: `respaldo token list` tells"),
            Refusal::TooMany { seconds } => Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many wrong tokens came from this address",
            )
            .hint(format!("wait {seconds} s; a right token still opens"))
            .retry_after(seconds),
            Refusal::Unknown(why) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, why),
        }
    }
}

#[derive(Default)]
pub(super) struct Gate {
    wrong: Mutex<Tries>,
    /// What is in the audit already: who came today, and who was refused in this hour.
    seen: Mutex<Seen>,
}

impl Gate {
    pub(super) async fn admit(
        &self,
        app: &App,
        given: Given<'_>,
        from: IpAddr,
    ) -> Result<Caller, Refusal> {
        let token = match given {
            Given::Header(token) | Given::Cookie(token) => token,
            Given::Nothing if app.settings.server.open_to_read => {
                return Ok(Caller { name: ANONYMOUS.into(), role: Role::Viewer, from });
            }
            Given::Nothing => return Err(Refusal::Nobody),
        };
        let known = tokio::time::timeout(ANSWER, find(app, token)).await;
        let unknown = |fault: Fault| Refusal::Unknown(fault.chain());
        let found = known
            .unwrap_or_else(|_| Err(Fault::transient("the catalog does not answer")))
            .map_err(unknown)?;
        match found {
            Some((name, role)) => {
                let caller = Caller { name, role, from };
                self.note_use(app, &caller.actor()).await;
                Ok(caller)
            }
            None => {
                self.note_refusal(app, Actor::nobody(from), "a wrong token").await;
                Err(self.wrong(from))
            }
        }
    }

    /// Of a token's use the first one of a day from an address is in the audit.
    async fn note_use(&self, app: &App, actor: &Actor) {
        let day = app.site.clock.now().as_second() / 86_400;
        if locked(&self.seen).uses.add(day, actor) == Some(1) {
            let deed = Deed::new(Action::TokenUse);
            note(app, actor, &deed, AuditOutcome::Done).await;
        }
    }

    /// Of refusals the 1st, 10th, 100th and so on of an hour from an address is in the audit: a flood
    /// must not fill the disk.
    pub(super) async fn note_refusal(&self, app: &App, actor: Actor, what: &str) {
        let hour = app.site.clock.now().as_second() / 3600;
        let count = locked(&self.seen).refusals.add(hour, &actor);
        let Some(count) = count.filter(|count| is_power_of_ten(*count)) else { return };
        let deed = Deed::new(Action::TokenUse).saying(format!("{what}, {count} in this hour"));
        note(app, &actor, &deed, AuditOutcome::Refused).await;
    }

    fn wrong(&self, from: IpAddr) -> Refusal {
        locked(&self.wrong).add(from)
    }
}

/// A poisoned lock still holds every count.
fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who comes in must not hang on it.
pub(super) async fn note(app: &App, actor: &Actor, deed: &Deed, outcome: AuditOutcome) {
    let noted = tokio::time::timeout(ANSWER, app.site.note(actor, deed, outcome)).await;
    match noted {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => tracing::error!("{}", fault.chain()),
        Err(_) => tracing::error!("the audit does not answer"),
    }
}

fn is_power_of_ten(count: u64) -> bool {
    count > 0 && 10_u64.pow(count.ilog10()) == count
}

#[derive(Default)]
struct Seen {
    uses: Counts,
    refusals: Counts,
}

/// How often somebody was seen in a day or an hour.
#[derive(Default)]
struct Counts {
    period: i64,
    counts: HashMap<Actor, u64>,
}

impl Counts {
    /// Which time it is; `None` once there are too many to be told from one another.
    fn add(&mut self, period: i64, actor: &Actor) -> Option<u64> {
        if self.period != period {
            self.period = period;
            self.counts.clear();
        }
        if self.counts.len() >= ACTORS && !self.counts.contains_key(actor) {
            return None;
        }
        let count = self.counts.entry(actor.clone()).or_default();
        *count += 1;
        Some(*count)
    }
}

/// Whose token it is, and what they may do.
async fn find(app: &App, token: &str) -> Result<Option<(String, Role)>> {
    if token.len() > LONGEST {
        return Ok(None);
    }
    // Digests are compared, so that how long it takes says nothing about the token.
    let digest = token_digest(token);
    let mut found = None;
    for fixed in &app.settings.server.tokens {
        if is_same_digest(&digest, &token_digest(fixed.token.expose())) {
            found = Some((fixed.name.to_string(), fixed.role));
        }
    }
    let now = app.site.clock.now();
    for known in app.site.catalog.live_tokens().await? {
        if !is_same_digest(&digest, &known.digest) || !known.is_valid(now) {
            continue;
        }
        if known.used_at.is_none_or(|used| now.duration_since(used) >= NOTED)
            && let Err(fault) = app.site.catalog.note_token_use(known.id, now).await
        {
            tracing::warn!("{}", fault.chain());
        }
        found = Some((known.name.to_string(), known.role));
    }
    Ok(found)
}

/// Wrong tokens of this minute, by address.
struct Tries {
    watch: Stopwatch,
    minute: u64,
    counts: HashMap<IpAddr, u32>,
}

impl Default for Tries {
    fn default() -> Self {
        Self { watch: Stopwatch::start(), minute: 0, counts: HashMap::new() }
    }
}

impl Tries {
    fn add(&mut self, from: IpAddr) -> Refusal {
        let seconds = self.watch.elapsed().as_secs();
        if seconds / 60 != self.minute {
            self.minute = seconds / 60;
            self.counts.clear();
        }
        let mut key = network(from);
        if self.counts.len() >= ADDRESSES && !self.counts.contains_key(&key) {
            key = Ipv6Addr::UNSPECIFIED.into();
        }
        let count = self.counts.entry(key).or_default();
        *count = count.saturating_add(1);
        if *count <= TRIES {
            Refusal::Wrong
        } else {
            Refusal::TooMany { seconds: 60 - seconds % 60 }
        }
    }
}

/// Whoever has one IPv6 address has all of its /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_wrong_ten_times_and_then_has_to_wait() {
        let mut tries = Tries::default();
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        for _ in 0..TRIES {
            assert!(matches!(tries.add(address), Refusal::Wrong));
        }
        let Refusal::TooMany { seconds } = tries.add(address) else { panic!() };
        assert!((1..=60).contains(&seconds));
        assert!(matches!(tries.add("10.0.0.2".parse().unwrap()), Refusal::Wrong));
        // An IPv6 host has billions of addresses.
        for n in 0..TRIES {
            assert!(matches!(
                tries.add(format!("2001:db8::{n:x}").parse().unwrap()),
                Refusal::Wrong
            ));
        }
        assert!(matches!(tries.add("2001:db8::ffff".parse().unwrap()), Refusal::TooMany { .. }));
    }

    #[test]
    fn a_flood_of_refusals_fills_no_disk() {
        let mut counts = Counts::default();
        let actor = |n: u32| Actor::nobody(IpAddr::V4(n.into()));
        let noted = (0..5000).filter(|_| counts.add(1, &actor(0)).is_some_and(is_power_of_ten));
        assert_eq!(noted.count(), 4);
        let named = (0..5000).filter(|n| counts.add(1, &actor(*n)) == Some(1));
        assert_eq!(named.count(), ACTORS - 1);
        assert_eq!(counts.add(2, &actor(4000)), Some(1));
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_than_so_much_memory() {
        let mut tries = Tries::default();
        for n in 0..u32::try_from(ADDRESSES).unwrap() * 2 {
            tries.add(IpAddr::V4(n.into()));
        }
        assert!(tries.counts.len() <= ADDRESSES + 1);
    }
}
