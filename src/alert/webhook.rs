//! An alert as a request to whatever takes one. Knows method, headers and body; must not let the
//! address or a header's value, which are secrets, into any error.

use std::collections::BTreeMap;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::template::{Escape, Template, object};
use super::{Notice, http};
use crate::fault::{Context, Fault, Result};
use crate::secret::Secret;

const JSON: &str = "application/json";

/// A request that is made for each message.
#[derive(Debug, Clone)]
pub struct Webhook {
    pub url: Secret,
    pub method: String,
    /// Any of them may be a secret.
    pub headers: BTreeMap<String, Secret>,
    /// `None`: one JSON object of all that can be filled in.
    pub body: Option<Template>,
}

impl Webhook {
    pub(super) async fn send(&self, notice: &Notice) -> Result<()> {
        let (headers, content_type) = self.headers()?;
        let body = match &self.body {
            Some(template) => template.fill(notice, Escape::of(&content_type)),
            None => object(notice),
        };
        let method = Method::from_bytes(self.method.as_bytes()).context("prepare to post")?;
        let url = self.url.expose();
        let request = http::client()?.request(method, url).headers(headers).body(body);
        let response = request.send().await.map_err(|error| {
            let whole = "its URL must be a whole one: https://example.com/hook";
            http::unsent(error, "post to the webhook", whole, &http::host(url))
        })?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(http::refused(status.as_u16(), "the webhook")),
        }
    }

    fn headers(&self) -> Result<(HeaderMap, String)> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        let mut content_type = JSON.to_owned();
        for (name, secret) in &self.headers {
            let wrong = || {
                Fault::permanent(format!("the header {name} can't be sent"))
                    .hint("a header is one line of plain characters")
            };
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            let mut value = HeaderValue::from_str(secret.expose()).map_err(|_| wrong())?;
            if name == CONTENT_TYPE {
                content_type = secret.expose().to_owned();
            }
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok((headers, content_type))
    }
}
