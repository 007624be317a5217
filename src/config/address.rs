//! URLs that may hold a password: taken apart, put together without it, and made fit to show.
//! Knows the syntax; must not know keys. Errors never quote what stands before the `@`.

/// A URL in its parts, percent-decoded.
pub(super) struct Address {
    pub scheme: String,
    pub user: Option<String>,
    pub password: Option<String>,
    /// Empty where the URL names none; an IPv6 address is without its brackets.
    pub host: String,
    pub port: Option<u16>,
    /// What follows the host, without the first slash.
    pub path: String,
    pub query: Vec<(String, String)>,
}

/// Takes `scheme://user:password@host:port/path?query` apart; all but the scheme may be missing.
///
/// The last `@` before the `?` ends the password, so that one pasted as it is mostly works.
pub(super) fn parse(text: &str) -> Result<Address, String> {
    let (scheme, rest) = text.split_once("://").ok_or("it has no scheme, such as postgres://")?;
    let (body, query) = rest.split_once('?').unwrap_or((rest, ""));
    if query.contains('@') {
        return Err("write a ? in the password as %3F".into());
    }
    let (userinfo, place) = match body.rsplit_once('@') {
        Some((userinfo, place)) => (Some(userinfo), place),
        None => (None, body),
    };
    let (user, password) = match userinfo.map(|info| info.split_once(':').unwrap_or((info, ""))) {
        Some((user, password)) => (some(decode(user)?), some(decode(password)?)),
        None => (None, None),
    };
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port.filter(|port| !port.is_empty()) {
        Some(port) => Some(port.parse().map_err(|_| "what follows the host's : is no port")?),
        None => None,
    };
    let query = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect::<Result<_, String>>()?;
    Ok(Address {
        scheme: scheme.to_ascii_lowercase(),
        user,
        password,
        host: decode(host)?,
        port,
        path: decode(path)?,
        query,
    })
}

impl Address {
    /// The URL again, without the password.
    pub fn show(&self) -> String {
        let mut text = format!("{}://", self.scheme);
        if let Some(user) = &self.user {
            text.push_str(&encode(user, ""));
            text.push('@');
        }
        if self.host.contains(':') {
            text.push_str(&format!("[{}]", self.host));
        } else {
            text.push_str(&encode(&self.host, ","));
        }
        if let Some(port) = self.port {
            text.push_str(&format!(":{port}"));
        }
        if !self.path.is_empty() {
            text.push('/');
            text.push_str(&encode(&self.path, "/"));
        }
        for (index, (name, value)) in self.query.iter().enumerate() {
            let mark = if index == 0 { '?' } else { '&' };
            text.push_str(&format!("{mark}{}={}", encode(name, ""), encode(value, "/")));
        }
        text
    }
}

/// `text` with `***` in place of whatever could be a password, for an error about a URL.
pub(super) fn redact(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    if let Some((_, place)) = rest.rsplit_once('@') {
        return format!("{scheme}***@{}", without_query(place));
    }
    let authority = rest.split(['/', '?']).next().unwrap_or("");
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    if port.is_some_and(|port| !port.chars().all(|c| c.is_ascii_digit())) {
        return format!("{scheme}***");
    }
    format!("{scheme}{}", without_query(rest))
}

fn without_query(text: &str) -> String {
    text.split_once('?').map_or(text.to_owned(), |(before, _)| format!("{before}?***"))
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Replaces `%41` by `A`; a `+` stays.
pub(super) fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => return Err("write a % as %25".into()),
            },
            (b'%', _) => return Err("write a % as %25".into()),
            _ => (first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| "what is percent-encoded in it is not UTF-8".into())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Percent-encodes all but unreserved characters and those in `plain`.
pub(super) fn encode(text: &str, plain: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || plain.contains(c) {
            encoded.push(c);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_apart_what_people_write() {
        let parse = |text| parse(text).unwrap();
        let full = parse("postgres://us%65r:p%40ss@db.local:5433/my%20db?sslmode=require");
        assert_eq!(full.user.as_deref(), Some("user"));
        assert_eq!(full.password.as_deref(), Some("p@ss"));
        assert_eq!((full.host.as_str(), full.port), ("db.local", Some(5433)));
        assert_eq!(full.path, "my db");
        assert_eq!(full.query, [("sslmode".into(), "require".into())]);
        assert_eq!(full.show(), "postgres://user@db.local:5433/my%20db?sslmode=require");

        let raw = parse("postgres://u:p@s/s#w@db/x");
        assert_eq!((raw.password.as_deref(), raw.host.as_str()), (Some("p@s/s#w"), "db"));
        assert_eq!(parse("postgres://u@/x?host=/run/pg").host, "");
        assert_eq!(parse("postgres://%2Frun%2Fpg/x").host, "/run/pg");
        let six = parse("postgres://u@[::1]:5432/x");
        assert_eq!((six.host.as_str(), six.port), ("::1", Some(5432)));
        assert_eq!(six.show(), "postgres://u@[::1]:5432/x");
    }

    #[test]
    fn neither_errors_nor_redaction_show_a_password() {
        for text in [
            "postgres://u:hunter2@db:x/d",
            "postgres://u:hunter2?@db/d",
            "postgres://u:hunter2/d",
            "postgres://u:50%hunter2@db/d",
            "postgres://db/d?password=hunter2",
            "u:hunter2@db",
            "u:hunter2",
            "smtps://u:hunter2@h@host:465",
        ] {
            assert!(!redact(text).contains("hunter2"), "{text} -> {}", redact(text));
            let error = parse(text).err().unwrap_or_default();
            assert!(!error.contains("hunter2"), "{text} -> {error}");
        }
        assert_eq!(redact("ftp://host:21/x"), "ftp://host:21/x");
    }
}
