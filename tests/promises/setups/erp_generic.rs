//! ERP Generic: nine schemas and many tenants, seven destinations by age, encrypted; one tenant, one schema and
//! one table; and the three disasters of its playbook, as far as dumps go.

use std::fs;

use serde_json::Value;

use super::{AWS, PASSWORD, assert_proven, bare, server_of, shipped};
use crate::support::eventually;
use crate::support::gpg::Gpg;
use crate::support::moto::Moto;
use crate::support::postgres::{Database, Postgres};
use crate::support::program::{Output, Respaldo};
use crate::support::scene::{backups_in, listed};
use crate::support::slack::Slack;
use crate::support::stored::Stored;

const SCHEMAS: [&str; 9] = [
    "analytics",
    "auth",
    "core",
    "financial",
    "inventory",
    "projects",
    "purchase",
    "sales",
    "system",
];

const TABLES: &str = "
    CREATE ROLE erp_app;
    CREATE SCHEMA auth; CREATE SCHEMA core; CREATE SCHEMA financial; CREATE SCHEMA inventory;
    CREATE SCHEMA purchase; CREATE SCHEMA sales; CREATE SCHEMA analytics; CREATE SCHEMA projects; CREATE SCHEMA system;
    CREATE TABLE auth.users (id int PRIMARY KEY, tenant_id text NOT NULL, email text UNIQUE NOT NULL);
    CREATE TABLE core.partners (id int PRIMARY KEY, tenant_id text NOT NULL, name text NOT NULL);
    CREATE TABLE financial.accounts (id int PRIMARY KEY, tenant_id text NOT NULL, partner int REFERENCES core.partners, balance numeric);
    CREATE TABLE financial.entries (id int PRIMARY KEY, tenant_id text NOT NULL, account int NOT NULL REFERENCES financial.accounts, amount numeric);
    CREATE TABLE inventory.products (id int PRIMARY KEY, tenant_id text NOT NULL, name text);
    CREATE TABLE purchase.orders (id int PRIMARY KEY, tenant_id text NOT NULL, partner int REFERENCES core.partners);
    CREATE TABLE sales.orders (id int PRIMARY KEY, tenant_id text NOT NULL, partner int REFERENCES core.partners, created_at timestamptz NOT NULL, total numeric);
    CREATE TABLE sales.order_lines (id int PRIMARY KEY, tenant_id text NOT NULL, order_id int NOT NULL REFERENCES sales.orders ON DELETE CASCADE, product int REFERENCES inventory.products);
    CREATE TABLE projects.projects (id int PRIMARY KEY, tenant_id text NOT NULL, name text);
    CREATE TABLE system.audit_logs (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event text, table_name text, created_at timestamptz);
    CREATE MATERIALIZED VIEW analytics.daily_sales AS SELECT tenant_id, count(*) FROM sales.orders GROUP BY 1;
    ALTER TABLE sales.orders ENABLE ROW LEVEL SECURITY;
    CREATE POLICY tenant ON sales.orders USING (tenant_id = current_setting('erp.tenant'));
    GRANT USAGE ON SCHEMA sales TO erp_app; GRANT SELECT, INSERT ON sales.orders TO erp_app;
    INSERT INTO auth.users SELECT n, CASE n % 2 WHEN 0 THEN 'tenant-abc' ELSE 'tenant-xyz' END, n || '@erp.example.com' FROM generate_series(1, 100) n;
    INSERT INTO core.partners SELECT n, CASE n % 2 WHEN 0 THEN 'tenant-abc' ELSE 'tenant-xyz' END, 'Partner ' || n FROM generate_series(1, 200) n;
    INSERT INTO financial.accounts SELECT id, tenant_id, id, id * 10 FROM core.partners;
    INSERT INTO financial.entries SELECT n, tenant_id, id, n FROM generate_series(1, 2000) n JOIN financial.accounts ON id = n % 200 + 1;
    INSERT INTO inventory.products SELECT n, CASE n % 2 WHEN 0 THEN 'tenant-abc' ELSE 'tenant-xyz' END, md5(n::text) FROM generate_series(1, 50) n;
    INSERT INTO purchase.orders SELECT id, tenant_id, id FROM core.partners;
    INSERT INTO sales.orders SELECT n, tenant_id, id, '2025-11-24 02:00Z'::timestamptz - n * interval '1 hour', n
        FROM generate_series(1, 1000) n JOIN core.partners ON id = n % 200 + 1;
    INSERT INTO sales.order_lines SELECT n, tenant_id, id, n % 50 + 1 FROM generate_series(1, 3000) n JOIN sales.orders ON id = n % 1000 + 1;
    INSERT INTO projects.projects VALUES (1, 'tenant-abc', 'Migration');
    INSERT INTO system.audit_logs (event, table_name, created_at) VALUES ('INSERT', 'sales.orders', '2025-11-24Z');
    REFRESH MATERIALIZED VIEW analytics.daily_sales;";

struct Erp {
    respaldo: Respaldo,
    database: Database,
    key: String,
    s3: Moto,
    slack: Slack,
    server: Postgres,
}

impl Erp {
    fn new() -> Self {
        let (server, database) = server_of("erp_user", "erp_generic");
        database.psql(&format!("SET ROLE erp_user; {TABLES}"));
        // What docs/pitr.md asks of the server.
        for sql in [
            &format!("CREATE ROLE respaldo LOGIN REPLICATION PASSWORD '{PASSWORD}'"),
            "GRANT pg_monitor TO respaldo; GRANT SELECT ON sales.orders TO respaldo",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'",
            "SELECT pg_reload_conf()",
        ] {
            database.psql(sql);
        }
        let (s3, slack, key) = (Moto::start(), Slack::start(), Gpg::of("backup@erp.example.com"));
        s3.make_bucket("erp-generic-backups-prod");
        s3.make_bucket("erp-generic-backups-west");
        let at = format!("@127.0.0.1:{}", server.port);
        let here = [
            ("@postgres:5432", at.as_str()),
            ("file:///backups/postgres", "file://@DIR@/backups"),
            ("file:///mnt/tape", "file://@DIR@/tape"),
            ("/etc/postgresql/16/main", "@DIR@/main"),
        ];
        let (public, private, webhook) = (key.public_key(), key.private_key(), slack.webhook());
        let own = [
            ("db_password", PASSWORD),
            ("respaldo_password", PASSWORD),
            ("backup_key.asc", public.as_str()),
            ("backup_key_private.asc", &private),
            ("slack_webhook", &webhook),
        ];
        let respaldo = shipped("erp-generic", &here, &[&AWS[..], &own].concat())
            .env("AWS_ENDPOINT_URL", s3.endpoint());
        respaldo.write("main/postgresql.conf", "wal_level = replica");
        respaldo.write("main/pg_hba.conf", "host all all all scram-sha-256");
        let key = respaldo.path("secrets/backup_key_private.asc").display().to_string();
        Self { respaldo, database, key, s3, slack, server }
    }

    /// A restore by somebody who has the key and is sure.
    fn restore(&self, job: &str, more: &[&str]) -> Output {
        let words = [&["restore", job, "--yes", "--identity", &self.key], more].concat();
        self.respaldo.run(&words).expect(0)
    }
}

#[test]
fn erp_generic_every_copy_is_where_its_age_will_want_it() {
    let erp = Erp::new();
    let respaldo = &erp.respaldo;
    respaldo.run(&["config", "check"]).expect(0);
    respaldo.run(&["backup", "--all"]).expect(0);
    let local = respaldo.path("backups");
    let stored = Stored::newest(&local, "full");
    let all =
        ["cloud", "cloud_monthly", "cloud_weekly", "cloud_west", "cloud_yearly", "local", "tape"];
    assert_eq!(listed(respaldo, "full")[&stored.id()], all.map(str::to_owned).into());
    let dump = format!("full/{}/erp_generic.dump.zst.gpg", stored.id());
    for (bucket, folder, class) in [
        ("erp-generic-backups-prod", "daily", "STANDARD"),
        ("erp-generic-backups-prod", "weekly", "STANDARD_IA"),
        ("erp-generic-backups-prod", "monthly", "GLACIER"),
        ("erp-generic-backups-prod", "yearly", "DEEP_ARCHIVE"),
        ("erp-generic-backups-west", "daily", "STANDARD"),
    ] {
        let key = format!("postgres/{folder}/{dump}");
        assert_eq!(erp.s3.storage_class(bucket, &key), class, "{key}");
        let head = erp.s3.head(bucket, &key);
        assert_eq!(head.header("x-amz-server-side-encryption"), Some("AES256"), "{key}");
    }
    assert!(respaldo.path("tape").join(&dump).exists());

    // Each schema is an archive of its own; roles and settings are beside them; nothing is readable.
    let schemas = &backups_in(&local, "schemas")[&Stored::newest(&local, "schemas").id()];
    for schema in SCHEMAS {
        assert!(
            schemas.contains(&format!("schema.{schema}.dump.zst.gpg")),
            "{schema}: {schemas:?}"
        );
    }
    for files in [schemas, &backups_in(&local, "full")[&stored.id()]] {
        for file in ["globals.sql.zst.gpg", "server.json.zst.gpg", "SHA256SUMS", "RESTORE.md"] {
            assert!(files.contains(file), "{file}: {files:?}");
        }
    }
    assert_eq!(listed(respaldo, "config").values().next().unwrap().len(), 2);
    assert_eq!(listed(respaldo, "four_hourly").values().next().unwrap().len(), 1);
    // Slack hears of what went well, as the script told it.
    let told = erp.slack.messages();
    for job in ["full", "schemas", "four_hourly", "server", "config"] {
        let well = format!("{job} is backed up");
        assert!(told.iter().any(|message| message.to_string().contains(&well)), "{told:#?}");
    }

    // The next one is in none of the cold places: they have this week's, month's and year's.
    respaldo.run(&["backup", "full"]).expect(0);
    let second = Stored::newest(&local, "full").id();
    assert_eq!(
        listed(respaldo, "full")[&second],
        ["cloud", "cloud_west", "local"].map(str::to_owned).into()
    );
    let checked =
        respaldo.run(&["verify", "full", &stored.id(), "--identity", &erp.key]).expect(0).all();
    assert!(checked.contains("archived, not read"), "{checked}");
    // The weekly test: every row count of production, and its smoke tests.
    assert_proven(respaldo, "full", 3);
    erp.database.psql("TRUNCATE auth.users");
    respaldo.run(&["backup", "full"]).expect(0);
    let report =
        respaldo.run(&["drill", "full", "--destination", "local", "--json"]).expect(1).json();
    assert!(report["failures"].to_string().contains("auth.users"), "{report:#}");
}

#[test]
fn erp_generic_scenario_1_a_new_data_centre_from_the_cloud_alone() {
    let erp = Erp::new();
    erp.respaldo.run(&["backup", "full"]).expect(0);
    let before = erp.database.fingerprint();
    // What is left: the private key, which was elsewhere, and the bucket.
    let key = fs::read_to_string(&erp.key).unwrap();
    erp.server.stop();
    drop(erp.respaldo);
    let server = Postgres::fresh();
    server.psql("postgres", &format!("CREATE ROLE erp_user SUPERUSER LOGIN PASSWORD '{PASSWORD}'"));
    let new = bare(&server, "erp_user", &erp.s3.endpoint());
    new.write("key.asc", &key);
    let from = [
        "--from",
        "s3://erp-generic-backups-prod/postgres/daily/",
        "--trust",
        "--identity",
        "key.asc",
    ];
    // The application's role is missing, and said so before anything is done.
    let said = new.run(&[&["restore", "full", "--yes"], &from[..]].concat()).expect(2).stderr;
    assert!(said.contains("erp_app") && said.contains("--create-roles"), "{said}");
    assert!(!server.has_database("erp_generic"));
    new.run(&[&["restore", "full", "--yes", "--create-roles"], &from[..]].concat()).expect(0);
    let database = server.existing("erp_generic");
    assert_eq!(database.fingerprint(), before);
    let schemas = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_|information_schema|public' ORDER BY 1";
    assert_eq!(database.psql(schemas).lines().collect::<Vec<_>>(), SCHEMAS);
    // A tenant sees its own orders and nobody else's, as before.
    let tenant = "SET erp.tenant = 'tenant-abc'; SET ROLE erp_app; SELECT count(*), min(tenant_id), max(tenant_id) FROM sales.orders";
    assert_eq!(database.psql(tenant), "500|tenant-abc|tenant-abc");
}

#[test]
fn erp_generic_scenario_2_deleted_orders_come_back_beside_what_was_written_since() {
    let erp = Erp::new();
    let database = &erp.database;
    erp.respaldo.run(&["backup", "four_hourly"]).expect(0);
    let orders = |schema: &str| {
        format!(
            "SELECT count(*), sum(total), min(created_at) FROM {schema}.orders WHERE id <= 1000"
        )
    };
    let lines = "SELECT count(*), sum(id) FROM sales.order_lines";
    let before = (database.psql(&orders("sales")), database.psql(lines));
    // A DELETE without its WHERE, and business goes on.
    database.psql(
        "DELETE FROM sales.orders;
         INSERT INTO sales.orders VALUES (1001, 'tenant-abc', 1, now(), 99)",
    );
    erp.restore("four_hourly", &["--schema", "sales", "--into", "sales_before", "--where", "true"]);
    assert_eq!((database.psql(&orders("sales")), database.psql(lines)), before);
    assert_eq!(database.psql("SELECT total FROM sales.orders WHERE id = 1001"), "99");
    assert_eq!(database.psql(&orders("sales_before")), before.0);
    // Some rows, by time: as many as were found, and no others.
    database.psql("DROP SCHEMA sales_before CASCADE; DELETE FROM sales.orders WHERE id <= 1000");
    let since = "created_at >= '2025-11-23 02:00Z'";
    erp.restore("four_hourly", &["--table", "sales.orders", "--into", "found", "--where", since]);
    assert_eq!(database.psql("SELECT count(*) FROM sales.orders"), "25");
}

#[test]
fn erp_generic_scenario_2_the_whole_server_as_it_was_the_moment_before() {
    let erp = Erp::new();
    let (respaldo, database) = (&erp.respaldo, &erp.database);
    let daemon = respaldo.daemon();
    eventually("the base backup", || !listed(respaldo, "server").is_empty());
    // Its own drill starts a server on it, and asks that.
    let report = respaldo.run(&["drill", "server", "--json"]).expect(0).json();
    assert_eq!(report["proven"], true, "{report:#}");
    let orders = "SELECT count(*), sum(total), max(id) FROM sales.orders";
    database.psql("INSERT INTO sales.orders VALUES (1001, 'tenant-abc', 1, now(), 99)");
    let before = database.psql(orders);
    let moment = database.psql("SELECT clock_timestamp()");
    database.psql("DELETE FROM sales.orders");
    let end = database.psql("SELECT pg_current_wal_flush_lsn()");
    let is_in = |place: &Value| {
        let stored = place["stored_lsn"].as_str().map(str::to_owned);
        stored.is_some_and(|stored| {
            database.psql(&format!("SELECT '{stored}'::pg_lsn >= '{end}'::pg_lsn")) == "t"
        })
    };
    eventually("the log is in every place", || {
        let status = respaldo.run(&["wal", "status", "server", "--json"]);
        status.code == 0 && status.json()["places"].as_array().unwrap().iter().all(is_in)
    });
    respaldo.run(&["wal", "check", "server"]).expect(0);
    drop(daemon);
    // In the cloud is all that it takes; the server that made it is never asked.
    erp.server.stop();
    let there = erp.server.on_another(|folder| {
        let folder = folder.to_str().unwrap();
        let to = ["--to-time", &moment, "--data-dir", folder, "--destination", "cloud"];
        erp.restore("server", &to);
    });
    assert_eq!(there.existing("erp_generic").psql(orders), before);
}

#[test]
fn erp_generic_scenario_3_a_corrupt_database_is_restored_whole() {
    let erp = Erp::new();
    let database = &erp.database;
    erp.respaldo.run(&["backup", "full"]).expect(0);
    let before = database.fingerprint();
    // What a torn disk leaves: a table that can't be read, and rows that contradict each other.
    let file = database.psql("CHECKPOINT; SELECT pg_relation_filepath('financial.entries')");
    let data = erp.server.socket_folder().with_file_name("data");
    fs::OpenOptions::new().write(true).open(data.join(file)).unwrap().set_len(5000).unwrap();
    database.psql("ALTER TABLE sales.order_lines DROP CONSTRAINT order_lines_order_id_fkey; DELETE FROM sales.orders");
    erp.server.stop();
    erp.server.start_again();
    // First somewhere else, as `--target=erp_generic_staging` did; then in its place.
    erp.restore("full", &["--database", "erp_generic_staging"]);
    assert_eq!(erp.server.existing("erp_generic_staging").fingerprint(), before);
    erp.restore("full", &[]);
    assert_eq!(database.fingerprint(), before);
    database.psql("VACUUM FULL");
    database.psql("ANALYZE");
    database.psql("REINDEX DATABASE erp_generic");
    assert_eq!(database.fingerprint(), before);
}

#[test]
fn erp_generic_restores_one_tenant_one_schema_or_one_table() {
    let erp = Erp::new();
    let database = &erp.database;
    erp.respaldo.run(&["backup", "schemas"]).expect(0);
    let of = |tenant: &str| {
        let sql = "SELECT count(*), sum(amount) FROM financial.entries WHERE tenant_id =";
        database.psql(&format!("{sql} '{tenant}'"))
    };
    let (abc, before) = (of("tenant-abc"), database.fingerprint());

    // One tenant, from the schema that is loaded beside the live one; another one goes on.
    database.psql(
        "DELETE FROM financial.entries WHERE tenant_id = 'tenant-abc';
         UPDATE financial.entries SET amount = 0 WHERE id = 2 AND tenant_id = 'tenant-xyz'
             OR id = 3 AND tenant_id = 'tenant-xyz'",
    );
    let xyz = of("tenant-xyz");
    let tenant = "tenant_id = 'tenant-abc'";
    erp.restore(
        "schemas",
        &["--schema", "financial", "--into", "financial_temp", "--where", tenant],
    );
    assert_eq!((of("tenant-abc"), of("tenant-xyz")), (abc, xyz));
    database.psql("DROP SCHEMA financial_temp CASCADE");

    // One schema, once what is wrong has been dropped; from the cloud.
    database.psql("DROP SCHEMA financial CASCADE");
    let words = ["--schema", "financial", "--into", "financial", "--destination", "cloud"];
    let said = erp.restore("schemas", &words).stderr;
    assert_eq!(database.fingerprint(), before);
    // A key into another schema is not made, and its words are said.
    let key =
        "ADD CONSTRAINT accounts_partner_fkey FOREIGN KEY (partner) REFERENCES core.partners(id)";
    assert!(said.contains(key), "{said}");
    database.psql(&format!("ALTER TABLE ONLY financial.accounts {key}"));

    // One table, beside the live one, to look into or to copy from.
    database.psql("DELETE FROM auth.users WHERE id > 3");
    erp.restore("schemas", &["--table", "auth.users", "--into", "found"]);
    assert_eq!(database.psql("SELECT count(*) FROM found.users"), "100");
    assert_eq!(database.psql("SELECT count(*) FROM auth.users"), "3");
    database.psql("INSERT INTO auth.users SELECT * FROM found.users ON CONFLICT DO NOTHING; DROP SCHEMA found CASCADE");
    assert_eq!(database.fingerprint(), before);

    // Or in the place of what was dropped.
    database.psql("DROP SCHEMA auth CASCADE");
    erp.restore("schemas", &["--table", "auth.users", "--into", "auth"]);
    assert_eq!(database.fingerprint(), before);
}

#[test]
fn erp_generic_forgets_a_tenant_in_backups_that_are_encrypted() {
    let erp = Erp::new();
    let (respaldo, database) = (&erp.respaldo, &erp.database);
    for job in ["full", "schemas"] {
        respaldo.run(&["backup", job]).expect(0);
    }
    // A schema goes from every copy; what else holds its rows is said.
    let said = respaldo.run(&["erase", "schemas", "--schema", "projects", "--yes"]).expect(0).all();
    assert!(said.contains("job 'full'") && said.contains("of 'erp_generic' too"), "{said}");
    let stored = Stored::newest(&respaldo.path("backups"), "schemas");
    let file = |schema: &str| format!("schema.{schema}.dump.zst.gpg");
    assert!(stored.path(&file("sales")).exists() && !stored.path(&file("projects")).exists());
    let cloud = erp.s3.keys("erp-generic-backups-prod");
    let in_cloud = |schema: &str| cloud.iter().any(|key| key.ends_with(&file(schema)));
    assert!(in_cloud("sales") && !in_cloud("projects"), "{cloud:#?}");
    respaldo.run(&["verify", "schemas", "--identity", &erp.key]).expect(0);

    // Rows of a tenant are deleted again by each restore, before anybody sees them.
    let sql = "DELETE FROM auth.users WHERE tenant_id = 'tenant-abc'";
    database.psql(sql);
    respaldo.run(&["erase", "full", "--sql", sql, "--yes"]).expect(0);
    let now = database.fingerprint();
    erp.restore("full", &["--database", "erp_generic_staging"]);
    assert_eq!(erp.server.existing("erp_generic_staging").fingerprint(), now);
}
