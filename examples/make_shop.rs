//! Makes the sample shop database of `make demo`: `make_shop PATH`. The same rows every time, so
//! that two people who try it see the same numbers; no tool but the Rust build is needed.

use std::path::Path;

use anyhow::{Context, bail};
use rusqlite::{Connection, params};

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE customers (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL UNIQUE, city TEXT NOT NULL
    );
    CREATE TABLE products (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, price_cents INTEGER NOT NULL
    );
    CREATE TABLE orders (
        id INTEGER PRIMARY KEY,
        customer_id INTEGER NOT NULL REFERENCES customers (id),
        placed_at TEXT NOT NULL,
        status TEXT NOT NULL
    );
    CREATE TABLE order_items (
        order_id INTEGER NOT NULL REFERENCES orders (id),
        product_id INTEGER NOT NULL REFERENCES products (id),
        quantity INTEGER NOT NULL,
        price_cents INTEGER NOT NULL,
        PRIMARY KEY (order_id, product_id)
    ) WITHOUT ROWID;
    CREATE INDEX orders_by_customer ON orders (customer_id);
    CREATE VIEW sales AS
        SELECT p.name AS product, sum(i.quantity) AS sold, sum(i.quantity * i.price_cents) AS cents
        FROM order_items i JOIN products p ON p.id = i.product_id GROUP BY p.id;
";

const FIRST: [&str; 12] = [
    "Ana", "Luis", "María", "José", "Rosa", "Jorge", "Elena", "Raúl", "Carmen", "Íñigo", "Nélida",
    "Óscar",
];
const LAST: [&str; 10] =
    ["Quispe", "Mamani", "Flores", "Rojas", "Núñez", "Vargas", "Peña", "Castro", "Ibáñez", "Salas"];
const CITIES: [&str; 6] = ["Puno", "Lima", "Cusco", "Arequipa", "Tacna", "Juliaca"];
const THINGS: [&str; 8] = ["poncho", "chullo", "scarf", "blanket", "bag", "belt", "cushion", "rug"];
const COLOURS: [&str; 5] = ["red", "indigo", "ochre", "grey", "white"];
const STATUSES: [&str; 4] = ["paid", "shipped", "delivered", "returned"];

/// A linear congruential generator: repeatable on every machine, and good enough for sample rows.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: i64) -> i64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as i64 % limit
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as i64) as usize]
    }
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path] = args.as_slice() else { bail!("usage: make_shop PATH") };
    if Path::new(path).exists() {
        bail!("{path} exists already; remove it first");
    }
    // Under another name until it is whole: an interrupted first try must not look like a shop.
    let part = format!("{path}.part");
    for suffix in ["", "-wal", "-shm"] {
        let left = format!("{part}{suffix}");
        if Path::new(&left).exists() {
            std::fs::remove_file(&left).with_context(|| format!("cannot remove {left}"))?;
        }
    }
    fill(&part).with_context(|| format!("cannot fill {part}"))?;
    std::fs::rename(&part, path).with_context(|| format!("cannot rename {part} to {path}"))
}

fn fill(path: &str) -> anyhow::Result<()> {
    let mut db = Connection::open(path)?;
    db.execute_batch(SCHEMA)?;
    let tx = db.transaction()?;
    let mut dice = Dice(2025);
    for id in 1..=500 {
        let (first, last) = (dice.pick(&FIRST), dice.pick(&LAST));
        tx.execute(
            "INSERT INTO customers VALUES (?1, ?2, ?3, ?4)",
            params![
                id,
                format!("{first} {last}"),
                format!("customer{id}@example.com"),
                dice.pick(&CITIES)
            ],
        )?;
    }
    let names: Vec<String> =
        THINGS.iter().flat_map(|t| COLOURS.iter().map(move |c| format!("{c} {t}"))).collect();
    let mut prices = Vec::new();
    for (id, name) in (1i64..).zip(&names) {
        prices.push(500 + 50 * dice.below(300));
        tx.execute(
            "INSERT INTO products VALUES (?1, ?2, ?3)",
            params![id, name, prices[prices.len() - 1]],
        )?;
    }
    for id in 1..=3000 {
        let (day, hour, minute) = (id / 9, 8 + dice.below(12), dice.below(60));
        tx.execute(
            "INSERT INTO orders VALUES (?1, ?2, datetime('2025-01-01', ?3), ?4)",
            params![
                id,
                1 + dice.below(500),
                format!("+{} minutes", (day * 24 + hour) * 60 + minute),
                dice.pick(&STATUSES)
            ],
        )?;
        let products = names.len() as i64;
        let first = dice.below(products);
        for n in 0..1 + dice.below(4) {
            let product = (first + 7 * n) % products;
            tx.execute(
                "INSERT INTO order_items VALUES (?1, ?2, ?3, ?4)",
                params![id, product + 1, 1 + dice.below(3), prices[product as usize]],
            )?;
        }
    }
    tx.commit()?;
    db.close().map_err(|(_, e)| e)?;
    Ok(())
}
