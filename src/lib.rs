//! respaldo: a backup daemon that lives beside a database and proves that its backups restore.
//!
//! This file is the map. A module imports only from floors below its own; `tests/house.rs` holds
//! that.

// 0 facts
pub mod fault;
pub mod model;
pub mod secret;
// 1 tools
pub mod clock;
pub mod durable;
pub mod lock;
pub mod retry;
pub mod signature;
pub mod telemetry;
// 2 decisions
pub mod anomaly;
pub mod attention;
pub mod chain;
pub mod change;
pub mod comparison;
pub mod copies;
pub mod health;
pub mod report;
pub mod retention;
pub mod rotation;
pub mod schedule;
pub mod space;
pub mod wal;
// 3 doors
pub mod alert;
pub mod destination;
pub mod pipeline;
pub mod source;
// 4 memory
pub mod catalog;
// 5 work
pub mod job;
// 6 config
pub mod config;
// 7 app
pub mod app;
// 8 api
pub mod api;
// 9 daemon
pub mod daemon;
// 10 command line
pub mod cli;
