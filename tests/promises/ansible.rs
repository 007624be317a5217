//! The Ansible role: taken by its strictest checker, run for real below a folder of its own, and run again
//! without changing anything. What it installs makes a backup.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::config::text;
use crate::support::postgres::{Database, Postgres};
use crate::support::stored::Stored;
use crate::support::{temp_folder, testbed};

const SECRET: &str = "planted-db-secret";

fn role() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/ansible")
}

/// One of Ansible's programs in `folder`, with nothing of this machine's own settings.
fn ansible(program: &str, folder: &Path, home: &Path) -> Command {
    let bin = testbed("venv/bin");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(bin.join(program));
    command.current_dir(folder).env_clear().env("PATH", path).env("HOME", home);
    command.env("LANG", "C.UTF-8").env("ANSIBLE_NOCOLOR", "1").env("NO_COLOR", "1");
    command
}

fn ended(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// A machine that is one folder.
struct Host {
    folder: tempfile::TempDir,
    variables: Value,
}

impl Host {
    fn new(config: &str) -> Self {
        let folder = temp_folder("ansible");
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        let variables = json!({
            "respaldo_root": root,
            "respaldo_config": config.replace("@ROOT@", root.to_str().unwrap()),
            "respaldo_binary": env!("CARGO_BIN_EXE_respaldo"),
            "respaldo_create_user": false,
            "respaldo_user": "root",
            "respaldo_packages": [],
            "vault_db_password": SECRET,
            "ansible_become": false,
            "ansible_python_interpreter": testbed("venv/bin/python"),
        });
        Self { folder, variables }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("root").join(name)
    }

    /// Runs the shipped playbook, as loudly as it can: whether it ended well, how many tasks changed
    /// something, and all that it said.
    fn play(&self) -> (bool, u32, String) {
        let variables = self.folder.path().join("variables.json");
        fs::write(&variables, self.variables.to_string()).unwrap();
        let mut play = ansible("ansible-playbook", &role(), self.folder.path());
        play.args(["-i", "localhost,", "-c", "local", "-vv", "--diff", "playbook.yml", "-e"]);
        let (well, said) = ended(play.arg(format!("@{}", variables.display())));
        let recap = said.lines().find(|line| line.starts_with("localhost ")).unwrap_or_default();
        let changed = recap.split_once("changed=").unwrap_or_else(|| panic!("{said}")).1;
        let changed = changed.split(' ').next().unwrap().parse().unwrap();
        (well, changed, said)
    }

    #[track_caller]
    fn changes(&self) -> u32 {
        let (well, changed, said) = self.play();
        assert!(well, "{said}");
        assert!(!said.contains(SECRET), "a secret is shown: {said}");
        changed
    }

    #[track_caller]
    fn has_mode(&self, name: &str, mode: u32) {
        let found = fs::metadata(self.path(name)).unwrap().mode() & 0o7777;
        assert_eq!(found, mode, "{name} has {found:o}");
    }
}

fn config(database: &Database) -> String {
    format!(
        "data_dir = \"@ROOT@/var/lib/respaldo\"\n[destinations.local]\nurl = \"file://@ROOT@/backups\"\n\
         [jobs.db]\nschedule = \"0 2 * * *\"\nkeep = {{ local = {{ days = 7 }} }}\n\
         source = {{ postgres = {}, password_file = \"@ROOT@/etc/respaldo/secrets/db_password\" }}\n",
        text(&database.url())
    )
}

#[test]
fn the_role_is_taken_by_the_strictest_profile() {
    let home = temp_folder("lint");
    let lint = |folder: &Path| {
        let mut lint = ansible("ansible-lint", folder, home.path());
        ended(lint.args(["--offline", "--strict", "--profile", "production"]))
    };
    let (taken, said) = lint(&role());
    assert!(taken && said.contains("'production' was required, and it passed"), "{said}");
    // A checker that takes everything would be none.
    let copy = home.path().join("copy");
    let mut copied = Command::new("cp");
    assert!(copied.arg("-r").arg(role()).arg(&copy).status().unwrap().success());
    let tasks = copy.join("roles/respaldo/tasks/main.yml");
    let loose = fs::read_to_string(&tasks).unwrap() + "\n- name: Loose\n  shell: ls\n";
    fs::write(&tasks, loose).unwrap();
    let (taken, said) = lint(&copy);
    assert!(!taken && said.contains("fqcn") && said.contains("no-changed-when"), "{said}");

    let mut syntax = ansible("ansible-playbook", &role(), home.path());
    let (taken, said) = ended(syntax.args(["-i", "localhost,", "--syntax-check", "playbook.yml"]));
    assert!(taken, "{said}");
}

#[test]
fn what_the_role_installs_makes_a_backup_and_a_second_run_changes_nothing() {
    let database = Postgres::start().database("ansible");
    database.psql("CREATE TABLE t AS SELECT 1 AS n");
    let mut host = Host::new(&config(&database));
    assert!(host.changes() > 5);
    assert_eq!(host.changes(), 0);
    for (name, mode) in [
        ("etc/respaldo", 0o750),
        ("etc/respaldo/config.toml", 0o640),
        ("etc/respaldo/secrets", 0o700),
        ("etc/respaldo/secrets/db_password", 0o600),
        ("var/lib/respaldo", 0o700),
        ("backups", 0o700),
        ("usr/local/bin/respaldo", 0o755),
        ("etc/systemd/system/respaldo.service", 0o644),
    ] {
        host.has_mode(name, mode);
    }
    let added = host.path("etc/systemd/system/respaldo.service.d/folders.conf");
    assert!(fs::read_to_string(added).unwrap().contains("ReadWritePaths=-/backups\n"));

    // A secret that changes is one change, and a config that respaldo does not take is not put in the place
    // of one that it does.
    host.variables["vault_db_password"] = json!(database.password());
    host.variables["respaldo_config"] = json!("[jobs.db]\nschedul = \"@daily\"\n");
    let (well, changed, said) = host.play();
    assert!(!well && changed == 1 && said.contains("did you mean schedule?"), "{said}");
    let installed = |words: &[&str]| {
        let mut program = Command::new(host.path("usr/local/bin/respaldo"));
        program.arg("--config").arg(host.path("etc/respaldo/config.toml")).args(words);
        let (well, said) = ended(program.env_clear().env("PATH", std::env::var("PATH").unwrap()));
        assert!(well, "{said}");
    };
    installed(&["backup", "db"]);
    installed(&["verify", "db"]);
    assert_eq!(Stored::ids(&host.path("backups"), "db").len(), 1);
}

#[test]
fn the_role_makes_a_compose_service_as_closed_as_the_shipped_one() {
    let mut host = Host::new("timezone = \"UTC\"\n");
    host.variables["respaldo_kind"] = json!("compose");
    host.variables["respaldo_volumes"] = json!(["media_files:/media:ro"]);
    assert!(host.changes() > 3);
    assert_eq!(host.changes(), 0);
    host.has_mode("opt/app/respaldo/secrets", 0o700);
    host.has_mode("opt/app/respaldo/secrets/db_password", 0o600);
    for name in ["opt/app/respaldo/secrets", "opt/app/respaldo/secrets/db_password", "backups"] {
        assert_eq!(fs::metadata(host.path(name)).unwrap().uid(), 10001, "{name}");
    }
    let read = |path: PathBuf| -> Value {
        let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
        let mut python = Command::new(testbed("venv/bin/python"));
        let (well, said) = ended(python.args(["-c", script]).arg(path));
        assert!(well, "{said}");
        serde_json::from_str(&said).unwrap()
    };
    let ours = read(host.path("opt/app/docker-compose.respaldo.yml"));
    let shipped = read(Path::new(env!("CARGO_MANIFEST_DIR")).join("docker-compose.backup.yml"));
    let (ours, shipped) = (&ours["services"]["respaldo"], &shipped["services"]["respaldo"]);
    let closed = [
        "read_only",
        "tmpfs",
        "cap_drop",
        "security_opt",
        "stop_grace_period",
        "restart",
        "hostname",
    ];
    for key in closed {
        assert!(!shipped[key].is_null() && ours[key] == shipped[key], "{key}: {}", ours[key]);
    }
    let mounts = ours["volumes"].as_array().unwrap();
    for mount in [
        "respaldo_data:/var/lib/respaldo",
        "/backups:/backups",
        "media_files:/media:ro",
        "./respaldo/config.toml:/etc/respaldo/config.toml:ro",
        "./respaldo/secrets:/run/secrets:ro",
    ] {
        assert!(mounts.contains(&json!(mount)), "{mount}: {mounts:?}");
    }
    assert!(!ours.to_string().contains(SECRET));
}
