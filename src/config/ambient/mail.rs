//! The mail variables of Django's settings, and of docker-volume-backup. A mail that can't be sent is a warning, never an error:
//! it must not keep backups from being made.

use super::{Ambient, Found};
use crate::config::address::Address;
use crate::config::resolve::alert::is_mailbox;
use crate::fault::Result;

/// The mail servers of addresses that people use for this.
const PROVIDERS: [(&str, &str); 16] = [
    ("gmail.com", "smtp.gmail.com"),
    ("googlemail.com", "smtp.gmail.com"),
    ("outlook.com", "smtp-mail.outlook.com"),
    ("hotmail.com", "smtp-mail.outlook.com"),
    ("live.com", "smtp-mail.outlook.com"),
    ("outlook.es", "smtp-mail.outlook.com"),
    ("yahoo.com", "smtp.mail.yahoo.com"),
    ("yahoo.es", "smtp.mail.yahoo.com"),
    ("icloud.com", "smtp.mail.me.com"),
    ("me.com", "smtp.mail.me.com"),
    ("zoho.com", "smtp.zoho.com"),
    ("fastmail.com", "smtp.fastmail.com"),
    ("gmx.com", "mail.gmx.com"),
    ("gmx.net", "mail.gmx.net"),
    ("gmx.de", "mail.gmx.net"),
    ("yandex.com", "smtp.yandex.com"),
];

const FROM: [&str; 3] = ["EMAIL_FROM", "DEFAULT_FROM_EMAIL", "EMAIL_NOTIFICATION_SENDER"];

impl Ambient<'_> {
    /// Sets `alerts.email`, or says what is missing where mail was asked for.
    pub(super) fn mail(&mut self) -> Result<()> {
        let recipient = self.first(&["EMAIL_TO", "ALERT_EMAIL", "EMAIL_NOTIFICATION_RECIPIENT"])?;
        let user = self.first(&["EMAIL_HOST_USER", "EMAIL_SMTP_USERNAME"])?;
        let host = self.first(&["EMAIL_HOST", "EMAIL_SMTP_HOST"])?;
        if recipient.is_none() && user.is_none() && host.is_none() {
            return Ok(());
        }
        let known = user.as_ref().and_then(|user| provider(&user.value));
        let Some(host) = host.map(|host| host.value).or(known.map(str::to_owned)) else {
            let why = match &user {
                Some(user) => format!("the mail server of {:?} is not known", user.value),
                None => "EMAIL_HOST is not set".into(),
            };
            return self.no_mail(why, "EMAIL_HOST");
        };
        let from = self.first(&FROM)?.or(user.clone());
        let Some(from) = from.filter(|from| is_mailbox(&from.value)) else {
            return self.no_mail("there is no sender's address".into(), "EMAIL_FROM");
        };
        // Nobody named: the mail user is told itself, as the seeds' scripts do it.
        let own = || user.clone().filter(|user| is_mailbox(&user.value));
        let Some(to) = recipient.or_else(own) else {
            return self.no_mail("there is no recipient".into(), "EMAIL_TO");
        };
        if let Some(bad) = to.value.split(',').map(str::trim).find(|to| !is_mailbox(to)) {
            return self.no_mail(format!("{bad:?} is not a mail address"), &to.variable);
        }
        let password =
            self.first(&["EMAIL_HOST_PASSWORD", "EMAIL_SMTP_PASSWORD"])?.filter(|_| user.is_some());
        if user.is_some() && password.is_none() {
            let set = "EMAIL_HOST_PASSWORD or EMAIL_HOST_PASSWORD_FILE";
            return self.no_mail("EMAIL_HOST_USER has no password".into(), set);
        }
        let port = self.first_or(&["EMAIL_PORT", "EMAIL_SMTP_PORT"], "")?;
        let number = match port.value.trim() {
            "" => None,
            text => match text.parse() {
                Ok(number) => Some(number),
                Err(_) => return self.no_mail(format!("EMAIL_PORT is {text:?}"), "a port there"),
            },
        };
        let smtp = self.smtp(host, number, user.as_ref())?;
        self.layer.set("alerts.email.email.smtp", smtp.show(), "EMAIL_HOST");
        self.set("alerts.email.email.from", &from);
        self.set("alerts.email.email.to", &to);
        if let Some(password) = password {
            self.set_secret("alerts.email.email.password", &password);
        }
        self.level("email")
    }

    fn no_mail(&mut self, why: String, set: &str) -> Result<()> {
        self.warnings.push(format!("no mail will be sent: {why}; set {set}"));
        Ok(())
    }

    fn smtp(&self, host: String, port: Option<u16>, user: Option<&Found>) -> Result<Address> {
        let implicit = self.truth("EMAIL_USE_SSL")?.unwrap_or(port == Some(465));
        let start_tls = self.truth("EMAIL_USE_TLS")?.unwrap_or(user.is_some());
        let (scheme, usual, query) = match (implicit, start_tls) {
            (true, _) => ("smtps", 465, Vec::new()),
            (false, true) => ("smtp", 587, Vec::new()),
            (false, false) => ("smtp", 587, vec![("tls".to_owned(), "none".to_owned())]),
        };
        Ok(Address {
            scheme: scheme.into(),
            user: user.map(|user| user.value.clone()),
            password: None,
            host,
            port: Some(port.unwrap_or(usual)),
            path: String::new(),
            query,
        })
    }
}

fn provider(user: &str) -> Option<&'static str> {
    let (_, domain) = user.rsplit_once('@')?;
    let known = PROVIDERS.iter().find(|(name, _)| name.eq_ignore_ascii_case(domain.trim()));
    known.map(|(_, server)| *server)
}
