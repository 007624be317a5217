//! docs/reference/metrics.md.

use respaldo::api::{FAMILIES, Kind};

use super::{code, head, table};

pub fn page() -> String {
    let rows: Vec<Vec<String>> = FAMILIES
        .iter()
        .map(|family| {
            let (kind, ending) = match family.kind {
                Kind::Counter => ("counter", "_total"),
                Kind::Gauge => ("gauge", ""),
            };
            let labels: Vec<String> = family.labels.iter().map(|label| code(label)).collect();
            vec![
                code(&format!("{}{ending}", family.name)),
                kind.to_owned(),
                labels.join(", "),
                format!("{}.", family.help),
            ]
        })
        .collect();
    head(
        "Metrics",
        "What `GET /metrics` answers, in the OpenMetrics format, without a token. What is not known is not there: \
         a job without a backup\nhas no `respaldo_rpo_seconds`. How to scrape it, rules and a dashboard: \
         [monitoring](../monitoring.md#prometheus).",
    ) + &table(&["metric", "type", "labels", "meaning"], &rows)
}
