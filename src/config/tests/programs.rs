//! What is refused of MySQL's URLs, and of programs of the user's own.

use super::refusals::jobs;

#[test]
fn mysql_commands_and_hooks() {
    jobs(&[
        ("source = { postgres = 'mysql://u@db/x' }", &["does not start with postgres://"]),
        ("source = { mysql = 'postgres://u@db/x' }", &["start with mysql:// or mariadb://"]),
        ("source = { mysql = 'mysql://u:hunter2@db' }", &["names no database", "mysql://***@db"]),
        (
            "source = { mysql = 'mysql://u@db/x?sslmode=required' }",
            &["sslmode is not known", "did you mean ssl-mode?"],
        ),
        (
            "source = { mysql = 'mysql://u@db/x?ssl-mode=verify-full' }",
            &["no ssl-mode verify_full", "verify_identity"],
        ),
        (
            "source = { mysql = 'mysql://u@db/x?ssl-cert=/c' }",
            &["ssl-cert and ssl-key go together"],
        ),
        ("source = { mysql = 'mysql://u@/x?socket=run' }", &["does not start at the root"]),
        (
            "source = { mysql = 'mysql://u@db/x', format = 'plain' }",
            &["jobs.db.source.format", "belongs to postgres, not to mysql"],
        ),
        ("source = { command = 'mongodump --archive' }", &["no shell takes it apart", "a list"]),
        ("source = { command = [] }", &["jobs.db.source.command", "names no program"]),
        ("source = { command = ['bin/x'] }", &["does not start at the root"]),
        ("source = { command = ['/x'], name = '../x' }", &["jobs.db.source.name can't be"]),
        ("source = { command = ['/x'], extension = '.rdb' }", &["without a dot"]),
        ("source = { command = ['/x'], env = { 'A-B' = 'hunter2' } }", &["'A-B' can't be"]),
        ("source = { command = ['/x'], env = { A = 7 } }", &["jobs.db.source.env.A is a number"]),
        ("source = { sqlite = '/x', env = { A = 'hunter2' } }", &["belongs to command"]),
    ]);
    let source = "source = { sqlite = '/x' }";
    jobs(&[
        (&format!("{source}\nhooks = {{ timeout = '5m' }}"), &["neither before nor after"]),
        (&format!("{source}\nhooks = {{ before = 'a b' }}"), &["hooks.before", "a shell"]),
        (
            &format!("{source}\nhooks = {{ after = '/a', timeout = 'x' }}"),
            &["jobs.db.hooks.timeout can't be \"x\""],
        ),
        (&format!("{source}\nhooks = {{ befor = '/a' }}"), &["did you mean before?"]),
    ]);
    let files = "source = { files = '/x' }";
    jobs(&[
        (&format!("{source}\non_change = true"), &["jobs.db.on_change", "changes of files"]),
        (&format!("{files}\npoll = '5s'"), &["jobs.db.poll", "on_change is not set"]),
        (&format!("{files}\non_change = true\npoll = 'x'"), &["jobs.db.poll can't be \"x\""]),
        (&format!("{files}\non_change = true\npoll = '0s'"), &["jobs.db.poll"]),
    ]);
}
