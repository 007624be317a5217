//! A server of MySQL's kind that respaldo starts for one drill, and a database on it: a socket in a
//! private folder, no network. Knows how to make, start and end it; must not know any other server.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use futures::FutureExt;
use sqlx::{AssertSqlSafe, Connection as _};

use super::client::Family;
use super::target::MysqlTarget;
use super::{Mysql, quote};
use crate::fault::{Context, Fault, Result};
use crate::secret::Secret;
use crate::source::child::{self, Program};
use crate::source::private::PrivateServer;
use crate::source::{Scratch, Session, Target, Wanted};

/// What it holds need not survive anything, and nothing but loading happens in it.
const SETTINGS: [&str; 10] = [
    "--skip-networking",
    "--skip-log-bin",
    "--local-infile=0",
    "--event-scheduler=OFF",
    "--performance-schema=OFF",
    "--innodb-flush-log-at-trx-commit=0",
    "--skip-innodb-doublewrite",
    "--innodb-buffer-pool-size=128M",
    "--max-allowed-packet=1G",
    "--character-set-server=utf8mb4",
];

pub(super) struct MysqlScratch {
    server: Server,
    target: MysqlTarget,
    database: String,
}

/// A running server. Dropped, it is killed; its folder goes with the run's spool.
struct Server {
    private: PrivateServer,
    /// Who loads and asks: nothing but the one database is theirs.
    loader: Mysql,
}

impl MysqlScratch {
    pub(super) async fn start(source: &Mysql, wanted: &Wanted, session: &Session) -> Result<Self> {
        let facts = wanted.facts.as_ref();
        let version = facts.and_then(|facts| facts.server_version.clone()).unwrap_or_default();
        let database = facts.map_or_else(|| source.database.clone(), |facts| facts.name.clone());
        let family = Family::of(&version);
        let program = program(family, source.bin_dir.as_deref(), session).await?;
        let server = Server::start(family, &program, source, &database, session).await?;
        let wanted = Wanted { database: Some(database.clone()), ..wanted.clone() };
        let mut target = MysqlTarget::new(&server.loader, &wanted, session).await?;
        target.make_definers();
        Ok(Self { server, target, database })
    }
}

/// A database's name where a grant takes a pattern.
pub(super) fn pattern(database: &str) -> String {
    quote(database).replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%")
}

/// The installed server of this family.
async fn program(family: Family, bin_dir: Option<&Path>, session: &Session) -> Result<PathBuf> {
    let names = ["mariadbd", "mysqld"];
    let named = names.map(|name| Some(bin_dir?.join(name)).filter(|path| path.is_file()));
    for path in named.into_iter().chain(names.map(child::find)).flatten() {
        let asked = Program::new(&path).args(["--no-defaults", "--version"]);
        let said = child::output(asked, session.cancel.clone()).await.unwrap_or_default();
        if !said.is_empty() && Family::of(&said) == family {
            return Ok(path);
        }
    }
    let package = match family {
        Family::Mariadb => "mariadb-server",
        Family::Mysql => "mysql-server",
    };
    Err(Fault::unprovable(format!("no {} server is installed here to load it into", family.name()))
        .hint(format!("install {package} where respaldo runs (it need not be started)")))
}

impl Server {
    async fn start(
        family: Family,
        program: &Path,
        source: &Mysql,
        database: &str,
        session: &Session,
    ) -> Result<Self> {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let folder = session.spool.join(format!("my-{}", &unique[..8]));
        let socket = folder.join("socket");
        let private = PrivateServer::new(folder, &socket, session)?;
        for name in ["tmp", "files"] {
            crate::durable::create_folder(&private.folder.join(name))
                .context("make a folder for a server")?;
        }
        let host = socket.display().to_string();
        let loader = Mysql {
            host,
            user: format!("respaldo_{}", &unique[..16]),
            password: Some(Secret::new(uuid::Uuid::new_v4().simple().to_string())),
            bin_dir: source.bin_dir.clone(),
            ..Mysql::nowhere(database)
        };
        let mut server = Self { private, loader };
        server.make(family, program).await?;
        server.launch(program).await?;
        server.let_in(database).await?;
        Ok(server)
    }

    fn data(&self) -> String {
        format!("--datadir={}", self.private.folder.join("data").display())
    }

    /// The folder is for our eyes alone, so that no other user could run it.
    fn user() -> Option<&'static str> {
        rustix::process::geteuid().is_root().then_some("--user=root")
    }

    async fn make(&self, family: Family, program: &Path) -> Result<()> {
        let making = match family {
            Family::Mysql => Program::new(program).args(["--no-defaults", "--initialize-insecure"]),
            Family::Mariadb => {
                let name = "mariadb-install-db";
                let beside = program.parent().map(|folder| folder.join(name));
                let beside = beside.filter(|path| path.is_file()).or_else(|| child::find(name));
                let path = beside.ok_or_else(|| {
                    Fault::unprovable(format!("{name} is not installed here"))
                        .hint("install mariadb-server where respaldo runs")
                })?;
                Program::new(path)
                    .args(["--no-defaults", "--auth-root-authentication-method=normal"])
                    .args(["--skip-test-db", "--skip-name-resolve"])
            }
        };
        // Whatever begins with `#sql` in its temporary folder is removed by a server that starts: in a
        // shared one these are another server's temporary tables. (As an option, the script would
        // split it at spaces.)
        let making = making.env("TMPDIR", self.private.folder.join("tmp"));
        self.private.make(making.arg(self.data()).args(Self::user())).await
    }

    async fn launch(&mut self, program: &Path) -> Result<()> {
        let folder = &self.private.folder;
        let path = |option: &str, name: &str| format!("{option}={}", folder.join(name).display());
        let program = Program::new(program)
            .arg("--no-defaults")
            .args([self.data(), path("--socket", "socket"), path("--pid-file", "pid")])
            .args([path("--tmpdir", "tmp"), path("--secure-file-priv", "files")])
            .args(SETTINGS)
            .args(Self::user());
        self.private.launch(program).await?;
        let root = self.root();
        let connection = self.private.answer(|| root.connect(None).boxed()).await?;
        connection.close().await.ok();
        Ok(())
    }

    fn root(&self) -> Mysql {
        Mysql { user: "root".to_owned(), password: None, ..self.loader.clone() }
    }

    /// Makes the one who loads. Afterwards nobody is left who may do more: what a dump defines in the
    /// name of an administrator runs as nobody.
    async fn let_in(&self, database: &str) -> Result<()> {
        let doing = "make the user that loads";
        let mut root = self.root().connect(None).await?;
        let user = format!("'{}'@'localhost'", self.loader.user);
        let password = self.loader.password.as_ref().map(Secret::expose).unwrap_or_default();
        let database =
            quote(database).replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%");
        for sql in [
            format!("CREATE USER {user} IDENTIFIED BY '{password}'"),
            format!("GRANT ALL ON {database}.* TO {user} WITH GRANT OPTION"),
            // In whose name a dump defines something is made when it is met.
            format!("GRANT CREATE USER ON *.* TO {user}"),
        ] {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut root).await.context(doing)?;
        }
        // To define something in another's name; each server knows one of these.
        for right in ["SET USER", "SET_ANY_DEFINER", "ALLOW_NONEXISTENT_DEFINER", "SET_USER_ID"] {
            let sql = format!("GRANT {right} ON *.* TO {user}");
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut root).await.ok();
        }
        let sql = format!(
            "DELETE FROM mysql.global_priv WHERE User NOT IN ('{}', 'mariadb.sys'); FLUSH PRIVILEGES",
            self.loader.user
        );
        let mariadb = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut root).await;
        if mariadb.is_err() {
            let sql = "DROP USER 'root'@'localhost'";
            sqlx::raw_sql(sql).execute(&mut root).await.context(doing)?;
        }
        root.close().await.ok();
        Ok(())
    }
}

#[async_trait]
impl Scratch for MysqlScratch {
    fn target(&mut self) -> &mut dyn Target {
        &mut self.target
    }

    async fn check(&mut self, sql: &str) -> Result<bool> {
        let doing = "run the check";
        let mut connection = self.server.loader.connect(Some(&self.database)).await?;
        let asked = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection);
        let row = tokio::select! {
            row = asked => row.context(doing)?,
            () = self.server.private.stop.cancelled() => {
                return Err(Fault::cancelled("the drill was stopped"));
            }
        };
        // A truth is a number there.
        let value: Option<i64> = sqlx::Row::try_get_unchecked(&row, 0).context(doing)?;
        connection.close().await.ok();
        Ok(value.is_some_and(|value| value != 0))
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let loader = &self.server.loader;
        let password = loader.password.as_ref().map(Secret::expose).unwrap_or_default();
        vec![
            ("MYSQL_UNIX_PORT", loader.host.clone()),
            ("MYSQL_PWD", password.to_owned()),
            ("RESPALDO_USER", loader.user.clone()),
            ("RESPALDO_DATABASE", self.database.clone()),
        ]
    }

    async fn remove(self: Box<Self>) -> Result<()> {
        self.server.private.end().await
    }
}
