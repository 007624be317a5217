//! One clear sentence for each way a config can be wrong, with the key, the value, and what to do.

use super::*;

/// Each config, and what the refusal must say.
pub(super) fn check(cases: &[(&str, &[&str])]) {
    for (config, parts) in cases {
        let said = Bench::new(config).refusal();
        for part in *parts {
            assert!(said.contains(part), "{config}\nsaid: {said}\nmissing: {part}");
        }
        assert!(said.contains("config.toml") || config.is_empty(), "no file in: {said}");
    }
}

const HEAD: &str = "[destinations.local]\nurl = 'file:///backups'\n";

pub(super) fn jobs(cases: &[(&str, &[&str])]) {
    for (job, parts) in cases {
        check(&[(&format!("{HEAD}[jobs.db]\n{job}"), parts)]);
    }
}

#[test]
fn misspelt_and_future_keys() {
    let source = "source = { sqlite = '/x' }";
    jobs(&[
        (
            &format!("{source}\nshcedule = '@daily'"),
            &["unknown key jobs.db.shcedule", "did you mean schedule?", "catch_up"],
        ),
        (&format!("{source}\nkind = 'physical'"), &["unknown key jobs.db.kind", "known here"]),
        (
            &format!("{source}\ndrill = {{ check = [] }}"),
            &["unknown key jobs.db.drill.check", "did you mean checks?"],
        ),
        (
            &format!("{source}\ndrill = {{ server_password = 'x' }}"),
            &["jobs.db.drill.server_password", "no server that it is for", "add server"],
        ),
        (
            &format!("{source}\nkeep = {{ local = {{ day = 7 }} }}"),
            &["jobs.db.keep.local.day", "did you mean days?"],
        ),
        (
            "source = { sqlite = '/x', pasword = 'hunter2' }",
            &["jobs.db.source.pasword", "password"],
        ),
        (
            &format!("{source}\nkeep = {{ locl = {{ days = 7 }} }}"),
            &["jobs.db.keep.locl", "did you mean local?"],
        ),
    ]);
    check(&[
        (&format!("{PLAIN}[server]\nlisten_on = 'x'"), &["server.listen_on"]),
        (
            &format!("{PLAIN}[server]\nhosts = ['https://x']"),
            &["server.hosts can't be \"https://x\"", "the name alone"],
        ),
        (
            &format!("{PLAIN}[server]\nanonymous = 'write'"),
            &["server.anonymous can't be \"write\"", "none, read"],
        ),
        (
            &format!("{PLAIN}[server.tokens.ci]\nrole = 'root'\ntoken = 'x'"),
            &["server.tokens.ci.role can't be \"root\"", "viewer, operator, admin"],
        ),
        (
            &format!("{PLAIN}[server.tokens.ci]\nrole = 'viewer'\ntoken = 'hunter2'"),
            &["server.tokens.ci.token", "20 to 200", "openssl rand"],
        ),
        (
            &format!("{PLAIN}[server.tokens.ci]\nrole = 'viewer'"),
            &["server.tokens.ci.token", "missing", "token_file"],
        ),
        (&format!("{PLAIN}[Jobs.other]"), &["unknown key Jobs", "did you mean jobs?"]),
    ]);
    let bench = Bench::new(PLAIN).set("RESPALDO__JOBS__DB__RETIRES", "3");
    let said = bench.refusal();
    assert!(said.contains("from the variable RESPALDO__JOBS__DB__RETIRES"), "{said}");
    assert!(said.contains("did you mean retries?"), "{said}");
}

#[test]
fn wrong_types() {
    jobs(&[
        ("source = '/x'", &["jobs.db.source is \"/x\"", "a table is wanted"]),
        (
            "source = { sqlite = 5 }",
            &["jobs.db.source.sqlite is 5", "a string is wanted", "quotes"],
        ),
        (
            "source = { sqlite = '/x' }\nretries = 'three'",
            &["jobs.db.retries is \"three\"", "a whole number"],
        ),
        ("source = { sqlite = '/x' }\nretries = 1.5", &["jobs.db.retries is 1.5"]),
        ("source = { sqlite = '/x' }\nretries = -1", &["jobs.db.retries can't be -1", "0 to 100"]),
        ("source = { sqlite = '/x' }\nlevel = 99999999999", &["jobs.db.level"]),
        (
            "source = { sqlite = '/x' }\nkeep = { local = { days = 'x' } }",
            &["jobs.db.keep.local.days"],
        ),
        ("source = { sqlite = '/x' }\ncatch_up = 'maybe'", &["jobs.db.catch_up", "true or false"]),
        (
            "source = { sqlite = '/x' }\nmax_age = 13",
            &["jobs.db.max_age is 13", "max_age = \"13h\""],
        ),
        ("source = { sqlite = '/x' }\nschedule = [5]", &["jobs.db.schedule[0] is 5"]),
        ("source = { sqlite = '/x' }\nschedule = { a = 1 }", &["jobs.db.schedule is a table"]),
        (
            "source = { sqlite = '/x' }\ncompression = 'zst'",
            &["can't be \"zst\"", "did you mean zstd?", "gzip"],
        ),
        (
            "source = { files = '/x', unreadable = 'skip' }",
            &["unreadable can't be \"skip\"", "fail, warn"],
        ),
        ("schedule = '@daily'", &["jobs.db.source", "is missing", "add source"]),
    ]);
    check(&[
        (&format!("workers = 0\n{PLAIN}"), &["workers can't be 0", "1 to 64"]),
        (&format!("{PLAIN}[destinations.x]"), &["destinations.x.url is missing", "file:///folder"]),
    ]);
    let bench = Bench::new(PLAIN).set("RESPALDO__WORKERS", "many");
    assert!(bench.refusal().contains("workers is \"many\" (from the variable RESPALDO__WORKERS)"));
}

#[test]
fn a_password_that_is_no_string_is_not_shown() {
    for raw in ["12345678", "true", "['12345678']"] {
        let bench =
            with_postgres(&format!("{{ postgres = 'postgres://u@db/x', password = {raw} }}"));
        let said = bench.refusal();
        assert!(said.contains("jobs.db.source.password is"), "{said}");
        assert!(said.contains("a string is wanted") && said.contains("in quotes"), "{said}");
        assert!(!said.contains("12345678"), "{said}");
    }
}

#[test]
fn schedules_zones_durations_and_sizes() {
    let source = "source = { sqlite = '/x' }\n";
    let with = |line: &str| format!("{source}{line}");
    jobs(&[
        (
            &with("schedule = '61 * * * *'"),
            &["jobs.db.schedule", "'61 * * * *' is not a cron", "five fields"],
        ),
        (&with("schedule = ['@daily', '0 2 31 2 *']"), &["'0 2 31 2 *' never fires"]),
        (&with("max_age = '13 parsecs'"), &["jobs.db.max_age can't be \"13 parsecs\"", "13h"]),
        (&with("max_age = '0h'"), &["jobs.db.max_age", "more than nothing"]),
        (&with("jitter = '-5m'"), &["jobs.db.jitter", "negative"]),
        (&with("deadline = '0s'"), &["jobs.db.deadline", "more than nothing"]),
        (&with("volume_size = '64 gigs'"), &["jobs.db.volume_size", "a number with a unit"]),
        (&with("volume_size = '1B'"), &["jobs.db.volume_size", "64KiB to 64GiB"]),
        (&with("level = 40"), &["jobs.db.level", "40", "1 to 22"]),
        (&with("level = 3\ncompression = 'none'"), &["without compression"]),
    ]);
    check(&[
        (
            &format!("timezone = 'America/Limaa'\n{PLAIN}"),
            &["timezone can't be \"America/Limaa\"", "did you mean America/Lima?", "IANA"],
        ),
        (&format!("timezone = 'lima'\n{PLAIN}"), &["did you mean America/Lima?"]),
        (&format!("stall = '1'\n{PLAIN}"), &["stall can't be \"1\""]),
        (
            &format!("{PLAIN}[server]\nlisten = '8080'"),
            &["server.listen can't be \"8080\"", "0.0.0.0:8080"],
        ),
    ]);
    let said = Bench::new(PLAIN).set("TZ", "Mars/Base").refusal();
    assert!(said.contains("TZ can't be \"Mars/Base\""), "{said}");
}

#[test]
fn sources_and_their_urls() {
    jobs(&[
        (
            "source = {}",
            &[
                "jobs.db.source",
                "names nothing to back up",
                "postgres, mysql, sqlite, files and command",
            ],
        ),
        ("source = { sqlite = '/x', files = '/y' }", &["sqlite and files", "one source"]),
        (
            "source = { sqlite = '/x', password = 'hunter2' }",
            &["jobs.db.source.password", "belongs to postgres"],
        ),
        ("source = { files = [] }", &["names no folder"]),
        ("source = { files = '/x', exclude = 'a[' }", &["jobs.db.source.exclude can't be \"a[\""]),
        ("source = { postgres = 'db.example.com' }", &["no scheme", "postgres://user@host"]),
        ("source = { postgres = 'postgres://u@db' }", &["names no database"]),
        ("source = { postgres = 'postgres://u@db:99999/x' }", &["no port"]),
        (
            "source = { postgres = 'postgres://u@db/x?sslmod=require' }",
            &["sslmod is not known", "did you mean sslmode?"],
        ),
        (
            "source = { postgres = 'postgres://u@db/x?sslmode=verify_full' }",
            &["no sslmode verify_full", "did you mean verify-full?"],
        ),
    ]);
}

#[test]
fn secrets_that_are_missing_or_given_twice() {
    let url = "postgres = 'postgres://u@db/x'";
    jobs(&[
        (
            &format!("source = {{ {url}, password_file = '/run/secrets/nope' }}"),
            &["jobs.db.source.password_file", "/run/secrets/nope", "No such file", "secrets:"],
        ),
        (
            &format!("source = {{ {url}, password_file = '/a', password = 'hunter2' }}"),
            &["jobs.db.source.password", "password_file are given"],
        ),
        (
            "source = { postgres = 'postgres://u:hunter2@db/x', password_file = '/a' }",
            &["jobs.db.source.postgres holds a password as well", "out of the URL"],
        ),
        (&format!("source = {{ {url}, password = '' }}"), &["jobs.db.source.password", "empty"]),
        (
            &format!("source = {{ {url}, password = '${{DB_PW}}' }}"),
            &["jobs.db.source.password", "neither DB_PW nor DB_PW_FILE is set"],
        ),
    ]);
    let ask = || with_postgres(&format!("{{ {url}, password = '${{PW}}' }}"));
    let said = ask().set("PW_FILE", "/nope").refusal();
    for part in ["jobs.db.source.password", "config.toml", "PW_FILE", "/nope"] {
        assert!(said.contains(part), "{said}");
    }
    let said = ask().set("PW_FILE", "/nope").set("PW", "hunter2").refusal();
    assert!(said.contains("both PW and PW_FILE are set") && !said.contains("hunter2"), "{said}");
    let bench = ask();
    let empty = bench.write("empty", "\n").display().to_string();
    assert!(bench.set("PW_FILE", empty).refusal().contains("is empty"));
}

#[test]
fn alerts_and_their_urls() {
    let mail = |rest: &str| {
        format!("{PLAIN}[alerts.ops]\nemail = {{ from = 'a@b.pe', to = 'c@d.pe', {rest} }}")
    };
    check(&[
        (&format!("{PLAIN}[alerts.ops]"), &["alerts.ops", "none of email, slack, webhook"]),
        (
            &format!("{PLAIN}[alerts.ops]\nslack = {{}}"),
            &["alerts.ops.slack.webhook", "missing", "webhook_file"],
        ),
        (
            &format!("{PLAIN}[alerts.ops]\nslack = {{ webhook = 'hunter2' }}"),
            &["alerts.ops.slack.webhook", "not a URL"],
        ),
        (&mail("smtp = 'http://host'"), &["alerts.ops.email.smtp", "not smtp:// or smtps://"]),
        (&mail("smtp = 'smtp://host?tls=maybe'"), &["tls is none or starttls"]),
        (&mail("smtp = 'smtps://user@host'"), &["alerts.ops.email.password", "names a user"]),
        (&mail("smtp = 'smtps://host', password = 'hunter2'"), &["names no user"]),
        (&mail("smtp = 'smtps://u:hunter2@host:x'"), &["smtps://***@host:x", "no port"]),
        (&mail("from = 'x'"), &["config.toml, line"]),
        (
            &format!(
                "{PLAIN}[alerts.ops]\nemail = {{ from = 'nobody', to = [], smtp = 'smtp://h' }}"
            ),
            &["alerts.ops.email.from can't be \"nobody\"", "ops@example.com"],
        ),
        (
            &format!(
                "{PLAIN}[alerts.ops]\nemail = {{ from = 'a@b.pe', to = [], smtp = 'smtp://h' }}"
            ),
            &["alerts.ops.email.to", "names nobody"],
        ),
    ]);
}

#[test]
fn files_that_are_no_config() {
    let missing = load_from(Some(Path::new("/nowhere/respaldo.toml")), &Variables::new(), now());
    let text = said(missing.unwrap_err());
    assert!(text.contains("/nowhere/respaldo.toml") && text.contains("config init"), "{text}");
    let named = Variables::from([("RESPALDO_CONFIG".into(), "/nowhere/x.toml".into())]);
    assert!(said(load_from(None, &named, now()).unwrap_err()).contains("/nowhere/x.toml"));

    let text = Bench::new("workers = 2\n[jobs.db]\npassword = hunter2").refusal();
    assert!(text.contains("config.toml, line 3") && !text.contains("hunter2"), "{text}");
    let text = Bench::new("workers = 2\nworkers = 3").refusal();
    assert!(text.contains("line 2") && text.contains("duplicate"), "{text}");
    let bench = Bench::new(PLAIN);
    bench.write("config.d/x.toml", "workers = ");
    assert!(bench.refusal().contains("x.toml, line 1"));
    let text = Bench::new("").refusal();
    assert!(text.contains("names no job") && text.contains("[jobs.NAME]"), "{text}");
}

#[test]
fn webhooks_heartbeats_and_what_is_told() {
    let hook = |rest: &str| {
        format!("{PLAIN}[alerts.hook]\nwebhook = {{ url = 'https://h.example.com/x', {rest} }}")
    };
    let beat = |rest: &str| format!("{PLAIN}[alerts.beat]\nheartbeat = {{ {rest} }}");
    let more = |line: &str| format!("{PLAIN}{line}\n");
    check(&[
        (
            &format!("{PLAIN}[alerts.x]\nslack = {{}}\nwebhook = {{}}"),
            &["alerts.x", "both slack and webhook", "section"],
        ),
        (&format!("{PLAIN}[alerts.x]\nwebhook = {{}}"), &["alerts.x.webhook.url", "url_file"]),
        (
            &format!("{PLAIN}[alerts.x]\nwebhook = {{ url = 'hunter2' }}"),
            &["alerts.x.webhook.url", "not a URL"],
        ),
        (&hook("method = 'PSOT'"), &["alerts.hook.webhook.method", "did you mean POST?"]),
        (
            &hook("body = 'a {{titel}}'"),
            &["alerts.hook.webhook.body", "{{titel}}", "did you mean title?", "summary, text"],
        ),
        (&hook("headers = { 'a b' = 'x' }"), &["headers.a b", "not a header"]),
        (&hook("headers = { Host = 'x' }"), &["headers.Host", "for itself", "remove Host"]),
        (&hook("headers = { X = \"a\\nb\" }"), &["headers.X", "more than one line"]),
        (&hook("headers = { X_file = '/no/such' }"), &["headers.X_file", "can't be read"]),
        (&beat(""), &["alerts.beat.heartbeat", "no address", "url_file"]),
        (&beat("start = 'https://h.example.com/s'"), &["alerts.beat.heartbeat", "no address"]),
        (
            &beat("url = 'https://h.example.com/x', fail = 'https://h.example.com/f'"),
            &["both url and an address of its own"],
        ),
        (&beat("success = 'hunter2'"), &["alerts.beat.heartbeat.success", "not a URL"]),
        (
            &format!("{}\nseverity = 'error'", beat("url = 'https://h.example.com/x'")),
            &["alerts.beat.severity", "pinged by every backup", "remove severity"],
        ),
        (&more("severity = 'eror'"), &["alerts.chat.severity", "did you mean error?"]),
        (&more("jobs = ['bd']"), &["alerts.chat.jobs", "no such job", "did you mean db?"]),
        (&more("jobs = ['[']"), &["alerts.chat.jobs", "pattern"]),
        (&more("repeat = 'often'"), &["alerts.chat.repeat", "for example 90s"]),
        (&more("per_hour = 0"), &["alerts.chat.per_hour", "1 to 1000"]),
        (&more("digest = 'weekly'"), &["alerts.chat.digest", "cron"]),
    ]);
}
