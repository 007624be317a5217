//! What is around a job's source, as it is written: hooks, drills, verification; and the server.

use super::{postgres_url, wait};
use crate::config::file::{FileDrill, FileHooks, FileServer, FileToken, FileVerify, FileWal};
use crate::config::settings::{Drill, Hooks, Server, Verify, Wal};
use crate::config::units;

pub(super) fn drill(drill: &Drill) -> FileDrill {
    let some = |given: &Vec<String>| (!given.is_empty()).then(|| given.clone());
    let files = drill.identity_files.iter().map(|path| path.display().to_string()).collect();
    FileDrill {
        schedule: some(&drill.schedule_lines),
        checks: some(&drill.checks),
        programs: (!drill.programs.is_empty()).then(|| drill.programs.clone()),
        deadline: Some(wait(drill.deadline)),
        identity_file: some(&files),
        passphrase_file: drill.passphrase_file.clone(),
        server: drill.server.as_ref().map(postgres_url),
        server_password: None,
        server_password_file: None,
    }
}

pub(super) fn verify(verify: &Verify) -> FileVerify {
    FileVerify { schedule: Some(verify.schedule_lines.clone()), days: Some(verify.days) }
}

pub(super) fn wal(wal: &Wal) -> FileWal {
    FileWal {
        max_lag: Some(units::show_duration(wal.max_lag)),
        every: Some(wait(wal.every)),
        slot_limit: wal.slot_limit.map(units::show_size),
        keep: Some(&wal.keep).filter(|keep| !keep.is_empty()).map(|keep| {
            keep.iter()
                .map(|(name, window)| (name.clone(), units::show_duration(*window)))
                .collect()
        }),
    }
}

pub(super) fn hooks(hooks: &Hooks) -> FileHooks {
    let words = |words: &Vec<String>| Some(words.clone()).filter(|words| !words.is_empty());
    FileHooks {
        before: words(&hooks.before),
        after: words(&hooks.after),
        before_restore: words(&hooks.before_restore),
        after_restore: words(&hooks.after_restore),
        timeout: Some(wait(hooks.limit)),
    }
}

pub(super) fn server(server: &Server) -> FileServer {
    let tokens = server.tokens.iter().map(|token| {
        let role = Some(token.role.as_str().to_owned());
        (token.name.as_str().to_owned(), FileToken { role, token: None, token_file: None })
    });
    FileServer {
        listen: Some(server.listen.to_string()),
        hosts: Some(server.hosts.clone()).filter(|hosts| !hosts.is_empty()),
        anonymous: server.open_to_read.then(|| "read".to_owned()),
        secure_cookies: server.secure_cookies.then_some(true),
        tokens: tokens.collect(),
    }
}
