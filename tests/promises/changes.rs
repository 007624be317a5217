//! A job of files runs when they have changed and come to rest, once for each change, and not
//! because the daemon was started again.

use crate::support::program::Respaldo;
use crate::support::scene::{HEAD, LOCAL, backups_in, files_job, last_run, local_root};

#[test]
fn files_are_backed_up_when_they_have_changed_and_not_at_a_restart() {
    let job = files_job("etc", "on_change = true\npoll = \"1s\"\n");
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{job}"));
    respaldo.write("etc/app.conf", "a = 1");
    let daemon = respaldo.daemon();
    daemon.wait_for_logs("is committed", 1);
    assert_eq!(last_run(&respaldo, "etc")["trigger"], "change");
    respaldo.write("etc/deep/new.conf", "b = 2");
    daemon.wait_for_logs("is committed", 2);
    assert_eq!(daemon.terminate(), 0);

    // Another job, looked at just as often, shows when the first has been looked at twice.
    let other = files_job("other", "on_change = true\npoll = \"1s\"\n");
    respaldo.write("other/file", "x");
    respaldo.write_config(&format!("{HEAD}{LOCAL}{job}{other}"));
    let daemon = respaldo.daemon();
    daemon.wait_for_logs("is committed", 1);
    assert_eq!(backups_in(&local_root(&respaldo), "other").len(), 1);
    assert_eq!(backups_in(&local_root(&respaldo), "etc").len(), 2, "nothing changed meanwhile");
    respaldo.write("etc/app.conf", "a = 3");
    daemon.wait_for_logs("is committed", 2);
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(backups_in(&local_root(&respaldo), "etc").len(), 3);

    // A backup that was asked for counts as one.
    respaldo.write("etc/app.conf", "a = 4");
    respaldo.run(&["backup", "etc"]).expect(0);
    let daemon = respaldo.daemon();
    respaldo.write("etc/app.conf", "a = five");
    daemon.wait_for_logs("is committed", 1);
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(backups_in(&local_root(&respaldo), "etc").len(), 5);
}
