//! When the certificates in a PEM file end (RFC 5280). Knows just enough DER to reach that date;
//! must not trust a length that it reads, nor judge anything else about a certificate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version, which a certificate of the first one does not say.
const VERSION: u8 = 0xa0;

/// The end of each certificate in the file, in its order; one that can't be read is left out.
pub fn ends(pem: &str) -> Vec<Timestamp> {
    pem.split(BEGIN)
        .skip(1)
        .filter_map(|part| {
            let text: String =
                part.split(END).next()?.chars().filter(|c| !c.is_whitespace()).collect();
            end(&BASE64.decode(text).ok()?)
        })
        .collect()
}

fn end(der: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = take(der, SEQUENCE)?;
    let (signed, _) = take(certificate, SEQUENCE)?;
    let rest = take(signed, VERSION).map_or(signed, |(_, rest)| rest);
    let (_, rest) = take(rest, INTEGER)?;
    let (_algorithm, rest) = take(rest, SEQUENCE)?;
    let (_issuer, rest) = take(rest, SEQUENCE)?;
    let (validity, _) = take(rest, SEQUENCE)?;
    let (_, _begin, rest) = next(validity)?;
    let (tag, text, _) = next(rest)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// The content of the element at the front, which must have that tag, and what follows it.
fn take(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = next(der)?;
    (found == tag).then_some((content, rest))
}

fn next(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, der) = der.split_first()?;
    let (&first, der) = der.split_first()?;
    let (length, der) = match first {
        0..=0x7f => (usize::from(first), der),
        // At most three bytes: no certificate has 16 MiB.
        0x81..=0x83 => {
            let (bytes, der) = der.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), der)
        }
        _ => return None,
    };
    let (content, rest) = der.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn time(tag: u8, text: &str) -> Option<Timestamp> {
    let text = match tag {
        // Two digits for the year: from 50 on it is the last century.
        UTC_TIME => {
            let century = if text.get(..2)?.parse::<u8>().ok()? >= 50 { "19" } else { "20" };
            format!("{century}{text}")
        }
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let at = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl req -x509 -newkey ed25519 -days 100000`, and one of them `-days 1`.
    const TWO: &str = include_str!("certificate/two.pem");

    #[test]
    fn the_end_of_each_certificate_is_read() {
        let ends: Vec<String> = ends(TWO).iter().map(ToString::to_string).collect();
        assert_eq!(ends, include_str!("certificate/two.txt").lines().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_cut_or_bent_is_left_out_and_breaks_nothing() {
        assert_eq!(ends("no certificate"), []);
        assert_eq!(ends(&format!("{BEGIN}\n!!!\n{END}")), []);
        let whole = TWO.split(BEGIN).nth(1).and_then(|part| part.split(END).next()).unwrap();
        let text: String = whole.chars().filter(|c| !c.is_whitespace()).collect();
        let der = BASE64.decode(text).unwrap();
        assert!(end(&der).is_some());
        for cut in 0..der.len() {
            end(&der[..cut]);
            for byte in [0, 0x7f, 0x83, 0xff] {
                let mut bent = der.clone();
                bent[cut] = byte;
                end(&bent);
            }
        }
    }
}
