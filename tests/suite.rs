//! The promises, each tried against real servers.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod documents;
mod reference;
mod support;

mod promises {
    pub mod access;
    pub mod alerts;
    pub mod alerts_door;
    pub mod ansible;
    pub mod api;
    pub mod audit;
    pub mod chain;
    pub mod chain_servers;
    pub mod changes;
    pub mod commands;
    pub mod contract;
    pub mod crash;
    pub mod daily;
    pub mod deploy;
    pub mod destinations;
    pub mod documents;
    pub mod drill;
    pub mod drill_others;
    pub mod encryption;
    pub mod environment;
    pub mod erase;
    pub mod faults;
    pub mod files;
    pub mod foreign;
    pub mod house;
    pub mod import;
    pub mod keeping;
    pub mod make;
    pub mod migrate;
    pub mod migrating;
    pub mod monitoring;
    pub mod mysql;
    pub mod operation;
    pub mod page;
    pub mod places;
    pub mod postgres;
    pub mod primary_lost;
    pub mod put_back;
    pub mod recovery;
    pub mod recovery_faults;
    pub mod reference;
    pub mod refusals;
    pub mod release;
    pub mod report;
    pub mod rereading;
    pub mod restore;
    pub mod restored;
    pub mod retention;
    pub mod setups;
    pub mod space;
    pub mod sqlite;
    pub mod stock_tools;
    pub mod streams;
    pub mod sync;
    pub mod terms;
    pub mod upgrade;
    pub mod wal;
    pub mod wal_disk;
    pub mod wal_soak;
    pub mod wal_window;
}
