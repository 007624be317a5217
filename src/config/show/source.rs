//! Sources as they are written. Knows each one's keys; must never write a secret.

use super::postgres_url;
use crate::config::address::Address;
use crate::config::file::FileSource;
use crate::config::settings::{Command, Mysql, PgKind, Physical};

pub(super) fn physical(physical: &Physical) -> FileSource {
    FileSource {
        postgres: Some(postgres_url(&physical.server)),
        kind: Some(PgKind::Physical),
        allow_unbounded_slot: physical.allow_unbounded_slot.then_some(true),
        server_compression: (!physical.server_compression).then_some(false),
        bin_dir: physical.server.bin_dir.clone(),
        ..Default::default()
    }
}

pub(super) fn mysql(mysql: &Mysql) -> FileSource {
    FileSource {
        mysql: Some(mysql_url(mysql)),
        bin_dir: mysql.bin_dir.clone(),
        ..Default::default()
    }
}

fn mysql_url(mysql: &Mysql) -> String {
    let files =
        [("ssl-ca", &mysql.ssl_ca), ("ssl-cert", &mysql.ssl_cert), ("ssl-key", &mysql.ssl_key)];
    let files = files
        .into_iter()
        .filter_map(|(name, file)| Some((name.to_owned(), file.as_ref()?.display().to_string())));
    let mut query: Vec<(String, String)> = files.collect();
    query.extend(mysql.ssl_mode.clone().map(|mode| ("ssl-mode".to_owned(), mode)));
    let socket = mysql.host.starts_with('/');
    if socket {
        query.push(("socket".into(), mysql.host.clone()));
    }
    Address {
        scheme: "mysql".into(),
        user: Some(mysql.user.clone()),
        password: None,
        host: if socket { String::new() } else { mysql.host.clone() },
        port: Some(mysql.port).filter(|_| !socket),
        path: mysql.database.clone(),
        query,
    }
    .show()
}

/// Its variables are secrets, and come from where they were given.
pub(super) fn command(command: &Command) -> FileSource {
    FileSource {
        command: Some(command.words.clone()),
        name: Some(command.name.clone()),
        extension: Some(command.extension.clone()),
        restore_command: Some(command.restore.clone()).filter(|words| !words.is_empty()),
        ..Default::default()
    }
}
