//! An alert as an email. Knows SMTP, TLS and how the message looks; must not know what happened
//! beyond the notice it is given.

mod page;

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lettre::address::Envelope;
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls as Encryption, TlsParameters};
use lettre::transport::smtp::{AsyncSmtpTransport, Error as SmtpError};
use lettre::{AsyncTransport, Message, Tokio1Executor};

use super::Notice;
use crate::fault::{Context, Fault, Result};
use crate::secret::Secret;

/// A mail server and who hears through it.
#[derive(Debug, Clone)]
pub struct Email {
    /// `a@b` or `Name <a@b>`; so is each of `to`, of which there is at least one.
    pub from: String,
    pub to: Vec<String>,
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    /// Both or neither.
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// Certificates (PEM) to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// How the connection to the mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// From the first byte, usually port 465.
    Implicit,
    /// Asked for before anything is said, and required; usually port 587.
    StartTls,
    None,
}

const CONNECT: Duration = Duration::from_secs(10);
/// For the whole conversation: lettre's own limit covers the connect alone.
const SEND: Duration = Duration::from_secs(30);

type Transport = AsyncSmtpTransport<Tokio1Executor>;

/// Why one delivery did not happen.
enum Refusal {
    Silence,
    Smtp(SmtpError),
}

impl Refusal {
    fn code(&self) -> Option<u16> {
        match self {
            Self::Smtp(error) => error.status().map(u16::from),
            Self::Silence => None,
        }
    }
}

impl Email {
    pub(super) async fn send(&self, notice: &Notice) -> Result<()> {
        let message = self.message(notice)?;
        let transport = self.transport()?;
        let (everyone, bytes) = (message.envelope(), message.formatted());
        let Err(refusal) = deliver(&transport, everyone, &bytes).await else { return Ok(()) };
        let address_refused = matches!(refusal.code(), Some(550 | 551 | 553));
        if address_refused && everyone.to().len() > 1 {
            return self.send_to_each(&transport, everyone, &bytes).await;
        }
        Err(self.fault(refusal))
    }

    /// One stale address must not keep the others from hearing; the last refusal counts only when
    /// nobody could be reached.
    async fn send_to_each(
        &self,
        transport: &Transport,
        everyone: &Envelope,
        bytes: &[u8],
    ) -> Result<()> {
        let mut reached = false;
        let mut last = None;
        for to in everyone.to() {
            let envelope = Envelope::new(everyone.from().cloned(), vec![to.clone()])
                .context("address the mail")?;
            match deliver(transport, &envelope, bytes).await {
                Ok(()) => reached = true,
                Err(refusal) => {
                    let fault = self.fault(refusal);
                    tracing::warn!(%to, error = %fault, "an address did not get the alert");
                    last = Some(fault);
                }
            }
        }
        match last {
            Some(fault) if !reached => Err(fault),
            _ => Ok(()),
        }
    }

    fn message(&self, notice: &Notice) -> Result<Message> {
        let from = mailbox(&self.from)?;
        let id = format!("<{}@{}>", uuid::Uuid::new_v4(), from.email.domain());
        let mut message = Message::builder()
            .from(from)
            .subject(format!("[respaldo] {}", notice.title))
            .message_id(Some(id))
            .header(AutoSubmitted);
        for to in &self.to {
            message = message.to(mailbox(to)?);
        }
        message
            .multipart(MultiPart::alternative_plain_html(notice.text(), page::html(notice)))
            .context("write the mail")
            .map_err(|fault| fault.hint("name at least one address in `to`"))
    }

    fn transport(&self) -> Result<Transport> {
        let tls = match self.tls {
            Tls::Implicit => Encryption::Wrapper(self.tls_parameters()?),
            Tls::StartTls => Encryption::Required(self.tls_parameters()?),
            Tls::None => Encryption::None,
        };
        let mut transport = Transport::builder_dangerous(&self.host)
            .port(self.port)
            .tls(tls)
            .timeout(Some(CONNECT));
        if let Some(user) = &self.user {
            let password = self.password.as_ref().map_or("", Secret::expose);
            transport = transport.credentials(Credentials::new(user.clone(), password.to_owned()));
        }
        Ok(transport.build())
    }

    fn tls_parameters(&self) -> Result<TlsParameters> {
        let mut parameters = TlsParameters::builder(self.host.clone());
        if let Some(path) = &self.ca_file {
            let shown = path.display();
            let pem = std::fs::read(path)
                .context(format!("read the CA file {shown}"))
                .map_err(|fault| fault.hint("check the path and its rights"))?;
            let certificate = Certificate::from_pem(&pem)
                .context(format!("read the CA file {shown}"))
                .map_err(|fault| fault.hint("it must hold certificates in PEM form"))?;
            parameters = parameters.add_root_certificate(certificate);
        }
        parameters.build().context("prepare TLS for mail").map_err(|fault| {
            fault.hint("install the system's certificates (ca-certificates), or give a ca_file")
        })
    }

    /// The refusal as a sentence, whether it may pass, and what to do.
    fn fault(&self, refusal: Refusal) -> Fault {
        let server = format!("{}:{}", self.host, self.port);
        let error = match refusal {
            Refusal::Silence => {
                return Fault::transient(format!("{server} did not take the mail in 30 s"))
                    .hint("check the port and the TLS mode: smtps:// on 465, STARTTLS on 587");
            }
            Refusal::Smtp(error) => error,
        };
        let text = format!("send mail through {server}: {}", self.scrub(error.to_string()));
        match error.status().map(u16::from) {
            Some(530 | 534 | 535 | 538) => Fault::permanent(text)
                .hint("check the mail user and password; some providers want an app password"),
            Some(_) if error.is_transient() => {
                Fault::transient(text).hint("the mail server asks to try again later")
            }
            Some(_) => Fault::permanent(text)
                .hint("check `from` and `to`: the server may send for its own users only"),
            None if is_certificate(&error) => Fault::permanent(text)
                .hint("if the server's certificate is your own, name its CA in ca_file"),
            None if error.is_client() || error.is_tls() || is_tls_garbage(&error) => {
                Fault::permanent(text).hint(
                    "check the port and the TLS mode: smtps:// on 465, STARTTLS on 587, none on 25",
                )
            }
            None => Fault::transient(text).hint(format!(
                "check that {server} is right, running, and reachable from this machine or container"
            )),
        }
    }

    /// Some servers echo the command that they did not like, and that may have been the login.
    fn scrub(&self, text: String) -> String {
        let password = self.password.as_ref().map_or("", Secret::expose);
        if password.is_empty() {
            return text;
        }
        let user = self.user.as_deref().unwrap_or_default();
        let login = BASE64.encode(format!("\0{user}\0{password}"));
        [login.as_str(), &BASE64.encode(password), password]
            .into_iter()
            .fold(text, |text, secret| text.replace(secret, "***"))
    }
}

async fn deliver(transport: &Transport, envelope: &Envelope, bytes: &[u8]) -> Result<(), Refusal> {
    match tokio::time::timeout(SEND, transport.send_raw(envelope, bytes)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Refusal::Smtp(error)),
        Err(_) => Err(Refusal::Silence),
    }
}

fn mailbox(text: &str) -> Result<Mailbox> {
    text.parse().map_err(|_| {
        Fault::permanent(format!("'{text}' is not an email address"))
            .hint("write ops@example.com, or \"Ops <ops@example.com>\"")
    })
}

fn is_certificate(error: &SmtpError) -> bool {
    is_tls_garbage(error) && error.to_string().contains("certificate")
}

/// rustls reports whatever it can't accept, a certificate or plain text, as invalid data.
fn is_tls_garbage(error: &SmtpError) -> bool {
    let mut below = std::error::Error::source(error);
    while let Some(cause) = below {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::InvalidData;
        }
        below = cause.source();
    }
    false
}

/// Keeps out-of-office replies away (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::notice::tests::notice;
    use super::*;
    use crate::model::EventKind;

    fn email() -> Email {
        Email {
            from: "respaldo <respaldo@example.com>".into(),
            to: vec!["Ünï <ops@example.com>".into(), "dev@example.com".into()],
            host: "localhost".into(),
            port: 25,
            tls: Tls::None,
            user: Some("me".into()),
            password: Some(Secret::new("hunter2")),
            ca_file: None,
        }
    }

    #[test]
    fn a_mail_has_its_headers_and_both_parts() {
        let message = email().message(&notice(EventKind::Failed)).unwrap();
        let text = String::from_utf8(message.formatted()).unwrap();
        for part in [
            "Subject: [respaldo] db failed on web1\r\n",
            "dev@example.com",
            "Auto-Submitted: auto-generated\r\n",
            "@example.com>\r\n",
            "Date: ",
            "multipart/alternative",
            "text/plain",
            "text/html",
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
    }

    #[test]
    fn a_wrong_address_is_permanent_and_named() {
        let wrong = Email { to: vec!["nobody".into()], ..email() };
        let fault = wrong.message(&notice(EventKind::Failed)).unwrap_err();
        assert!(!fault.is_transient());
        assert_eq!(fault.to_string(), "'nobody' is not an email address");
        let none = Email { to: vec![], ..email() };
        let fault = none.message(&notice(EventKind::Failed)).unwrap_err();
        assert!(fault.next_step().unwrap().contains("`to`"));
    }

    #[test]
    fn an_echoed_login_is_not_repeated() {
        let echo = "500 what is AUTH PLAIN AG1lAGh1bnRlcjI= (hunter2, aHVudGVyMg==)";
        assert_eq!(email().scrub(echo.into()), "500 what is AUTH PLAIN *** (***, ***)");
    }
}
