//! Things that arrive from another thread, and waiting for them without sleeping.

use std::fmt::Debug;
use std::sync::{Condvar, Mutex};

use super::DEADLINE;

/// What has arrived so far, in order.
pub struct Inbox<T> {
    state: Mutex<State<T>>,
    news: Condvar,
}

struct State<T> {
    items: Vec<T>,
    /// Nothing more can arrive.
    closed: bool,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { items: Vec::new(), closed: false }), news: Condvar::new() }
    }
}

impl<T: Clone + Debug> Inbox<T> {
    pub fn push(&self, item: T) {
        self.state.lock().unwrap().items.push(item);
        self.news.notify_all();
    }

    /// Says that nothing more will arrive, so that nobody waits for it.
    pub fn close(&self) {
        self.state.lock().unwrap().closed = true;
        self.news.notify_all();
    }

    pub fn all(&self) -> Vec<T> {
        self.state.lock().unwrap().items.clone()
    }

    /// Waits until `find` finds what it looks for among all items; panics at the deadline, or when
    /// nothing more can arrive.
    pub fn wait_until<R>(&self, what: &str, find: impl Fn(&[T]) -> Option<R>) -> R {
        self.try_wait_until(find)
            .unwrap_or_else(|(why, items)| panic!("waiting for {what}: {why}; so far: {items:#?}"))
    }

    /// The same, but gives why it waits no longer, and what there is.
    pub fn try_wait_until<R>(
        &self,
        find: impl Fn(&[T]) -> Option<R>,
    ) -> Result<R, (&'static str, Vec<T>)> {
        let state = self.state.lock().unwrap();
        let waiting = |state: &mut State<T>| !state.closed && find(&state.items).is_none();
        let (state, _) = self.news.wait_timeout_while(state, DEADLINE, waiting).unwrap();
        let why = if state.closed { "it ended" } else { "the deadline passed" };
        find(&state.items).ok_or_else(|| (why, state.items.clone()))
    }

    /// Waits for `count` items and returns all there are.
    pub fn wait_for(&self, what: &str, count: usize) -> Vec<T> {
        self.wait_until(&format!("{count} {what}"), |items| {
            (items.len() >= count).then(|| items.to_vec())
        })
    }
}
