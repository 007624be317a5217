//! The HTML part of a mail. Knows what every mail reader shows; must not know how it is sent.

use crate::alert::{Notice, escape};

/// Inline styles and one table: what every mail reader shows.
pub(super) fn html(notice: &Notice) -> String {
    let (colour, dark) = (notice.tone.colour(), notice.tone.on_dark());
    let (title, summary) = (escape(&notice.title), escape(&notice.summary));
    let facts: String = notice
        .facts
        .iter()
        .map(|(label, value)| {
            let (label, value) = (escape(label), escape(value));
            format!(
                "<tr><td style=\"padding:3px 16px 3px 0;opacity:.7;vertical-align:top;white-space:nowrap\">{label}</td>\
                 <td style=\"padding:3px 0;white-space:pre-line;overflow-wrap:anywhere\">{value}</td></tr>\n"
            )
        })
        .collect();
    let hint = notice.hint.as_deref().map_or_else(String::new, |hint| {
        format!(
            "<p style=\"margin:16px 0 0;overflow-wrap:anywhere\"><strong>Next step:</strong> {}</p>\n",
            escape(hint)
        )
    });
    // What no inline style can say, for readers that take it: others show the light page.
    let in_the_dark = format!(
        "@media (prefers-color-scheme:dark){{body{{background:#16181c!important;color:#e6e6e6!important}}\
         .bar{{border-color:{dark}!important}}.head{{color:{dark}!important}}}}"
    );
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <style>:root{{color-scheme:light dark}}{in_the_dark}</style>\
         <title>{title}</title></head>\n\
         <body style=\"margin:0;padding:16px;font:15px/1.5 system-ui,sans-serif\">\n\
         <div class=\"bar\" style=\"max-width:640px;padding:0 0 0 16px;border-left:4px solid {colour}\">\n\
         <h1 class=\"head\" style=\"margin:0 0 8px;font-size:18px;line-height:1.3;color:{colour};overflow-wrap:anywhere\">{title}</h1>\n\
         <p style=\"margin:0 0 16px;white-space:pre-wrap;overflow-wrap:anywhere\">{summary}</p>\n\
         <table style=\"border-collapse:collapse;font-size:14px\">\n{facts}</table>\n{hint}\
         </div></body></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::notice::tests::notice;
    use crate::model::EventKind;

    #[test]
    fn html_is_escaped() {
        let html = html(&notice(EventKind::Failed));
        assert!(html.contains("table &lt;b&gt;&amp;&lt;/b&gt; is gone"), "{html}");
        assert!(!html.contains("<b>"));
    }
}
