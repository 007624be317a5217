//! What runs before and after a backup. Knows its keys; must not run it.

use std::time::Duration;

use super::{Desk, command};
use crate::config::file::FileHooks;
use crate::config::settings::Hooks;
use crate::fault::Result;

const LIMIT: Duration = Duration::from_secs(300);

pub(super) fn resolve(desk: &Desk<'_>, key: &str, written: FileHooks) -> Result<Hooks> {
    let given = [&written.before, &written.after, &written.before_restore, &written.after_restore];
    if given.iter().all(|words| words.is_none()) {
        return Err(desk
            .refuse(key, "it names neither before nor after")
            .hint("for example before = [\"/usr/local/bin/freeze\"]"));
    }
    let words = |name: &str, given: Option<Vec<String>>| match given {
        Some(given) => command::words(desk, &format!("{key}.{name}"), given),
        None => Ok(Vec::new()),
    };
    Ok(Hooks {
        before: words("before", written.before)?,
        after: words("after", written.after)?,
        before_restore: words("before_restore", written.before_restore)?,
        after_restore: words("after_restore", written.after_restore)?,
        limit: desk.wait(&format!("{key}.timeout"), written.timeout, LIMIT)?,
    })
}
