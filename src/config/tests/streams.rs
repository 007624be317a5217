//! What can be wrong about a database in several archives, and about several sources.

use super::refusals::check;

const REST: &str =
    "[destinations.local]\nurl = 'file:///backups'\n[jobs.db]\nschedule = '@daily'\n";

fn refused(source: &str, parts: &[&str]) {
    let config = format!(
        "{REST}source = {{ postgres = 'postgres://u@h/app', {source} }}\nkeep = {{ local = {{}} }}\n"
    );
    check(&[(&config, parts)]);
}

#[test]
fn patterns_of_databases_schemas_and_tables() {
    refused("databases = []", &["source.databases", "it names nothing", "\"all\""]);
    refused("databases = ['!test_*']", &["source.databases", "it names nothing"]);
    refused("databases = ['a[']", &["source.databases can't be \"a[\"", "tenant_*"]);
    refused("schemas = ''", &["source.schemas", "an empty name"]);
    refused("schemas = ['!x']", &["source.schemas", "it names nothing", "\"each\""]);
    refused("schemas = 5", &["source.schemas is 5", "a list of strings"]);
    refused(
        "exclude_tables = 'tmp_1'",
        &["source.exclude_tables can't be \"tmp_1\"", "names no schema", "public.tmp_1"],
    );
    refused("exclude_rows = ['a.b[']", &["source.exclude_rows can't be \"a.b[\""]);
}

#[test]
fn streams_and_fingerprints() {
    refused("streams = 0", &["source.streams can't be 0", "1 to 16"]);
    refused("streams = 99", &["source.streams can't be 99", "1 to 16"]);
    refused("streams = 2, streams_above = 'big'", &["streams_above can't be \"big\"", "256MiB"]);
    refused("streams_above = '1GiB'", &["streams_above", "with one stream", "streams = 2"]);
    refused("streams = 2, format = 'plain'", &["source.streams", "one artifact only", "custom"]);
    refused("schemas = 'each', format = 'plain'", &["source.schemas", "one artifact only"]);
    refused(
        "fingerprint = 'hash'",
        &["fingerprint can't be \"hash\"", "auto, off, counts, content"],
    );
    refused("globals = 'maybe'", &["source.globals is \"maybe\"", "true or false"]);
}

#[test]
fn one_source_or_several() {
    let with = |sources: &str| format!("{REST}{sources}\nkeep = {{ local = {{}} }}\n");
    check(&[
        (
            &with("source = { files = '/x' }\nsources = [{ files = '/y' }]"),
            &["jobs.db.source", "sources is given as well"],
        ),
        (&with("sources = []"), &["jobs.db.source", "it is missing"]),
        (&with("sources = [{ files = '/x' }, {}]"), &["jobs.db.sources[1]", "names nothing"]),
        (
            &with("sources = [{ sqlite = '/x', streams = 2 }]"),
            &["jobs.db.sources[0].streams", "belongs to postgres"],
        ),
    ]);
}
