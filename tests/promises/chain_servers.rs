//! Chains and the servers they are of: PostgreSQL 18 too, and never the changes of one server on the base
//! backup of another.

use super::chain::{ROWS, Scene, forced, kinds, recover, stands};
use super::wal::catch_up;
use crate::support::config::{HEAD, LOCAL};
use crate::support::eventually;
use crate::support::postgres::Postgres;
use crate::support::program::Respaldo;

#[test]
fn a_chain_of_eighteen_comes_back_too() {
    let scene = Scene::summarizing(Postgres::eighteen());
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", scene.chained("")));
    scene.write(5_000);
    let daemon = respaldo.daemon();
    eventually("the first base backup", || !kinds(&respaldo).is_empty());
    for _ in 0..2 {
        scene.write(500);
        scene.database.psql("DELETE FROM orders WHERE id % 11 = 0");
        stands(&respaldo);
    }
    scene.write(10);
    let rows = scene.rows();
    catch_up(&respaldo, &scene.server);
    scene.server.stop();
    daemon.kill9();
    let recovered = scene.server.on_another(|folder| {
        recover(&respaldo, folder, &["--latest"]).expect(0);
    });
    assert_eq!(recovered.psql("postgres", ROWS), rows);
    assert_eq!(
        recovered.psql("postgres", "SELECT current_setting('server_version_num')::int / 10000"),
        "18"
    );
    let drilled = respaldo.run(&["drill", "db", "--json"]).expect(0).json();
    assert_eq!(drilled["proven"], true, "{drilled:#}");
}

#[test]
fn changes_of_one_server_never_stand_on_the_backup_of_another() {
    let (scene, other) = (Scene::seventeen(), Scene::seventeen());
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{}", scene.chained("")));
    forced(&respaldo, "there is no base backup yet");
    stands(&respaldo);
    // A new server in the place of the old one, with the same tables.
    respaldo.write_config(&format!("{HEAD}{LOCAL}{}", other.chained("")));
    other.write(100);
    let refused = respaldo.run(&["backup", "db", "--incremental"]).expect(1);
    assert!(refused.stderr.contains("wal adopt"), "{}", refused.stderr);
    assert_eq!(kinds(&respaldo), ["full", "incremental"]);
    respaldo.run(&["wal", "adopt", "db"]).expect(0);
    forced(&respaldo, "the last base backup is of another server");
    stands(&respaldo);
    let rows = other.rows();
    let recovered = other.server.on_another(|folder| {
        recover(&respaldo, folder, &["--latest"]).expect(0);
    });
    assert_eq!(recovered.psql("postgres", ROWS), rows);
}
