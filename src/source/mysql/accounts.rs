//! `grants.sql`: the users that have rights on a database, and those rights, as SQL that leaves
//! accounts alone which exist already. Knows how servers print grants; must not let a password's
//! hash through unless told to.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, MySqlConnection};

use super::client::Family;
use super::connection::text;
use super::{Mysql, TRAILER, quote};

/// Accounts that belong to the server itself.
const SYSTEM: [&str; 9] = [
    "",
    "PUBLIC",
    "debian-sys-maint",
    "mariadb.sys",
    "mysql",
    "mysql.infoschema",
    "mysql.session",
    "mysql.sys",
    "root",
];

/// A user, or a role where it has no host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    name: String,
    host: String,
    role: bool,
}

impl Account {
    /// As in SQL.
    fn sql(&self) -> String {
        if self.role {
            quote(&self.name)
        } else {
            format!("{}@{}", quote(&self.name), quote(&self.host))
        }
    }
}

/// What a line of `SHOW GRANTS` is about.
#[derive(Debug, PartialEq, Eq)]
enum About {
    /// Membership in roles, as in SQL.
    Roles(Vec<String>),
    /// Every database; `USAGE` is no right at all.
    Everywhere {
        usage: bool,
    },
    Database(String),
    Other,
}

impl Mysql {
    /// The text of `grants.sql`; or none, and why, where the user may not read accounts.
    pub(super) async fn accounts(
        &self,
        connection: &mut MySqlConnection,
        family: Family,
    ) -> (Option<String>, Option<String>) {
        match self.read_accounts(connection, family).await {
            Ok(accounts) => (Some(self.grants_sql(family, &accounts)), None),
            Err(error) => (
                None,
                Some(format!(
                    "users and grants are not in the backup: {error} (GRANT SELECT ON mysql.* TO '{}')",
                    self.user
                )),
            ),
        }
    }

    /// Each account with rights on the database, how to create it, and its grants.
    async fn read_accounts(
        &self,
        connection: &mut MySqlConnection,
        family: Family,
    ) -> Result<Vec<(Account, String, Vec<String>)>, sqlx::Error> {
        // Names in backticks, whatever the server's own mode.
        sqlx::raw_sql("SET SESSION sql_mode = ''").execute(&mut *connection).await?;
        let all = match family {
            Family::Mariadb => "SELECT User, Host, is_role FROM mysql.user ORDER BY 1, 2",
            Family::Mysql => "SELECT User, Host, 'N' FROM mysql.user ORDER BY 1, 2",
        };
        let mut every = Vec::new();
        for row in sqlx::raw_sql(all).fetch_all(&mut *connection).await? {
            let [name, host, role] = [0, 1, 2].map(|column| text(&row, column).unwrap_or_default());
            let account = Account { name, host, role: role == "Y" };
            if SYSTEM.contains(&account.name.as_str()) {
                continue;
            }
            let show = format!("SHOW GRANTS FOR {}", account.sql());
            let rows = sqlx::raw_sql(AssertSqlSafe(show)).fetch_all(&mut *connection).await?;
            let lines: Vec<String> = rows.iter().filter_map(|row| text(row, 0)).collect();
            every.push((account, lines));
        }
        let mut chosen = Vec::new();
        for (account, lines) in with_rights(&self.database, every) {
            let create = match (account.role, self.hashes) {
                (true, _) => format!("CREATE ROLE IF NOT EXISTS {};", account.sql()),
                (false, true) => create_with_hash(connection, &account).await?,
                (false, false) => format!(
                    "-- The password is left out: ALTER USER {0} IDENTIFIED BY '...' ACCOUNT UNLOCK;\n\
                     CREATE USER IF NOT EXISTS {0} ACCOUNT LOCK;",
                    account.sql()
                ),
            };
            chosen.push((account, create, lines));
        }
        Ok(chosen)
    }

    fn grants_sql(&self, family: Family, accounts: &[(Account, String, Vec<String>)]) -> String {
        let name: String =
            self.database.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let mut text = format!(
            "-- Users of {} that have rights on the database {}, and those rights.\n\
             -- To be loaded by an administrator; accounts that exist stay as they are.\n\n",
            family.name(),
            quote(&name),
        );
        // Roles first: they are granted below.
        let (roles, users): (Vec<_>, Vec<_>) = accounts.iter().partition(|(one, ..)| one.role);
        for (_, create, _) in roles.into_iter().chain(users) {
            text.push_str(create);
            text.push('\n');
        }
        for (account, _, lines) in accounts {
            text.push_str(&format!("\n-- {}\n", one_line(&account.sql())));
            for line in lines {
                let line = without_password(line);
                let kept = match about(&line) {
                    About::Database(pattern) => {
                        self.database == pattern || like(&pattern, &self.database)
                    }
                    About::Everywhere { usage: false } | About::Roles(_) => true,
                    // No right at all; but what else it asks for, such as TLS, is said there.
                    About::Everywhere { usage: true } if asks(&line) => true,
                    About::Everywhere { usage: true } => continue,
                    About::Other => false,
                };
                match kept {
                    true => text.push_str(&format!("{line};\n")),
                    false => {
                        text.push_str(&format!("-- not on this database: {};\n", one_line(&line)))
                    }
                }
            }
        }
        text.push_str(&format!("\n{TRAILER}\n"));
        text
    }
}

async fn create_with_hash(
    connection: &mut MySqlConnection,
    account: &Account,
) -> Result<String, sqlx::Error> {
    // MySQL 8 would print bytes that are no text; others don't know it.
    let hex = sqlx::raw_sql("SET SESSION print_identified_with_as_hex = ON");
    hex.execute(&mut *connection).await.ok();
    let show = format!("SHOW CREATE USER {}", account.sql());
    let row = sqlx::raw_sql(AssertSqlSafe(show)).fetch_one(connection).await?;
    let sql = text(&row, 0).unwrap_or_default();
    Ok(format!("{};", sql.replacen("CREATE USER ", "CREATE USER IF NOT EXISTS ", 1)))
}

/// Accounts with rights of their own there, and those that have them through a role.
fn with_rights(database: &str, every: Vec<(Account, Vec<String>)>) -> Vec<(Account, Vec<String>)> {
    let mut chosen = BTreeSet::new();
    loop {
        let before = chosen.len();
        for (account, lines) in &every {
            let has = lines.iter().any(|line| match about(line) {
                About::Roles(roles) => roles.iter().any(|role| chosen.contains(role)),
                About::Everywhere { usage } => !usage,
                About::Database(pattern) => pattern == database || like(&pattern, database),
                About::Other => false,
            });
            if has {
                chosen.insert(account.sql());
            }
        }
        if chosen.len() == before {
            return every.into_iter().filter(|(one, _)| chosen.contains(&one.sql())).collect();
        }
    }
}

/// `text` with whatever is quoted in it blotted out, byte for byte.
fn blotted(text: &str) -> Vec<u8> {
    let mut inside = None;
    let mut escaped = false;
    let blot = |byte: u8| match inside {
        None => {
            inside = Some(byte).filter(|byte| b"'\"`".contains(byte));
            byte
        }
        Some(_) if escaped => {
            escaped = false;
            b'x'
        }
        Some(quote) if byte == quote => {
            inside = None;
            byte
        }
        Some(quote) => {
            escaped = byte == b'\\' && quote != b'`';
            b'x'
        }
    };
    text.bytes().map(blot).collect()
}

/// Where a word stands outside of quotes, from `from` on.
fn word(blotted: &[u8], word: &str, from: usize) -> Option<usize> {
    let found = blotted.get(from..)?.windows(word.len()).position(|w| w == word.as_bytes());
    found.map(|at| at + from)
}

fn about(line: &str) -> About {
    let plain = blotted(line);
    let Some(start) = line.strip_prefix("GRANT ").map(|_| "GRANT ".len()) else {
        return About::Other;
    };
    let Some(to) = word(&plain, " TO ", start) else { return About::Other };
    let Some(on) = word(&plain, " ON ", start).filter(|on| *on < to) else {
        return About::Roles(line[start..to].split(", ").map(str::to_owned).collect());
    };
    let mut object = &line[on + " ON ".len()..to];
    if object == "*.*" {
        return About::Everywhere { usage: &line[start..on] == "USAGE" };
    }
    for kind in ["TABLE ", "FUNCTION ", "PROCEDURE ", "PACKAGE BODY ", "PACKAGE "] {
        object = object.strip_prefix(kind).unwrap_or(object);
    }
    let plain = blotted(object);
    match word(&plain, "`.", 1) {
        Some(end) if object.starts_with('`') => About::Database(object[1..end].replace("``", "`")),
        _ => About::Other,
    }
}

/// Whether a line ends with conditions or limits.
fn asks(line: &str) -> bool {
    let plain = blotted(line);
    [" REQUIRE ", " WITH "].iter().any(|end| word(&plain, end, 0).is_some())
}

/// The line without `IDENTIFIED ...`, which MariaDB prints among the grants.
fn without_password(line: &str) -> String {
    let plain = blotted(line);
    let Some(start) = word(&plain, " IDENTIFIED ", 0) else { return line.to_owned() };
    let ends = [" REQUIRE ", " WITH "].into_iter().filter_map(|end| word(&plain, end, start));
    let end = ends.min().unwrap_or(line.len());
    format!("{}{}", &line[..start], &line[end..])
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// SQL's LIKE, as the names of databases in grants are matched.
fn like(pattern: &str, name: &str) -> bool {
    let mut letters = pattern.chars();
    let same = |letter: char, rest: &str| {
        let mut name = name.chars();
        name.next().is_some_and(|c| c == letter) && like(rest, name.as_str())
    };
    match letters.next() {
        None => name.is_empty(),
        Some('%') => {
            let rest = letters.as_str();
            let mut starts = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            starts.any(|at| like(rest, &name[at..]))
        }
        Some('_') => {
            let mut name = name.chars();
            name.next().is_some() && like(letters.as_str(), name.as_str())
        }
        Some('\\') => match letters.next() {
            Some(letter) => same(letter, letters.as_str()),
            None => name == "\\",
        },
        Some(letter) => same(letter, letters.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_told_apart() {
        let of = |line: &str| about(line);
        let database = |name: &str| About::Database(name.to_owned());
        assert_eq!(of("GRANT SELECT, INSERT ON `shop`.* TO `a`@`%`"), database("shop"));
        assert_eq!(of("GRANT SELECT (` ON x`) ON `a``b`.`t` TO `a`@`%`"), database("a`b"));
        assert_eq!(of("GRANT EXECUTE ON PROCEDURE `shop`.`p` TO `a`@`%`"), database("shop"));
        assert_eq!(of("GRANT USAGE ON *.* TO `a`@`%`"), About::Everywhere { usage: true });
        assert_eq!(of("GRANT FILE ON *.* TO `a`@`%`"), About::Everywhere { usage: false });
        assert_eq!(of("GRANT `r` TO `a`@`%`"), About::Roles(vec!["`r`".into()]));
        assert_eq!(of("GRANT PROXY ON ''@'%' TO 'root'@'localhost'"), About::Other);
        assert_eq!(of("SET DEFAULT ROLE `r` FOR `a`@`%`"), About::Other);
    }

    #[test]
    fn no_hash_is_let_through() {
        for (line, want) in [
            (
                "GRANT USAGE ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD '*1 WITH ' WITH GRANT OPTION",
                "GRANT USAGE ON *.* TO `a`@`%` WITH GRANT OPTION",
            ),
            (
                "GRANT FILE ON *.* TO `IDENTIFIED `@`%` IDENTIFIED VIA ed25519 USING 'x' OR unix_socket REQUIRE SSL",
                "GRANT FILE ON *.* TO `IDENTIFIED `@`%` REQUIRE SSL",
            ),
            ("GRANT SELECT ON `a`.* TO `b`@`%`", "GRANT SELECT ON `a`.* TO `b`@`%`"),
        ] {
            assert_eq!(without_password(line), want);
        }
    }

    #[test]
    fn patterns_match_as_in_sql() {
        for (pattern, name, matches) in [
            ("shop", "shop", true),
            ("shop\\_%", "shop_1", true),
            ("shop\\_%", "shopx1", false),
            ("sh_p", "shop", true),
            ("%", "", true),
            ("a%b%c", "axxbyyc", true),
            ("a%b%c", "axxbyy", false),
        ] {
            assert_eq!(like(pattern, name), matches, "{pattern} {name}");
        }
    }
}
