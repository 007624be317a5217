//! What a database held at the moment of its snapshot, table by table: what a restore is compared
//! with. Knows the shape; must not know how an engine counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TableName;

/// How much of it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FingerprintLevel {
    /// The number of rows of each table.
    Counts,
    /// Beside it a hash over every row, whatever their order.
    Content,
}

/// The rows of every table that was backed up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    pub level: FingerprintLevel,
    /// Counted at another moment than the dump's: compare with a grain of salt.
    #[serde(default, skip_serializing_if = "is_false")]
    pub approximate: bool,
    pub tables: Vec<TablePrint>,
    /// The last value of each sequence before the dump began, for no snapshot holds one still: a restore
    /// may be ahead of it, never behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sequences: Vec<SequencePrint>,
    /// How many objects of each kind there are: tables, views, functions and so on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub objects: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TablePrint {
    #[serde(flatten)]
    pub name: TableName,
    pub rows: u64,
    /// Hexadecimal; the sum of a 64-bit hash of each row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SequencePrint {
    #[serde(flatten)]
    pub name: TableName,
    pub last: i64,
}

impl Fingerprint {
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

fn is_false(value: &bool) -> bool {
    !value
}
