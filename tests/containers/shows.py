"""What the image must live through, in a real engine: scripts/test-containers.sh starts this.

The stack is deploy/compose/, laid over with override.yml; each check ends everything when it fails.
Arguments name some of the shows; each but `drop_in` wants `stack_up` before it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent.parent / "deploy" / "compose"
RESPALDO_UID = 10001
GRACE = 60  # stop_grace_period of the example


class Failed(Exception):
    pass


def check(right, what):
    if not right:
        raise Failed(what)


def run(*command, ok=(0,), env=None, timeout=300):
    """The command's standard output; its exit code must be one of `ok`."""
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
        timeout=timeout,
    )
    if done.returncode not in ok:
        raise Failed(f"{' '.join(map(str, command))} exited {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def until(what, probe, seconds):
    """What `probe` answers once that is true."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        check(time.monotonic() < deadline, f"not within {seconds} s: {what}")
        time.sleep(0.5)


class Stack:
    def __init__(self, folder):
        self.folder = folder
        shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
        shutil.copy(HERE / "override.yml", folder)
        (folder / "config.d").mkdir(exist_ok=True)
        self.join("blog.toml")
        secrets = folder / "secrets"
        secrets.mkdir(exist_ok=True)
        # As README.md beside the example says.
        for name in ["db_password", "s3_password"]:
            secret = secrets / name
            secret.write_text(os.urandom(12).hex())
            secret.chmod(0o400)
            os.chown(secret, RESPALDO_UID, RESPALDO_UID)

    def join(self, name):
        """A further part of the config."""
        shutil.copy(HERE / name, self.folder / "config.d")

    def reload(self):
        run("docker", "kill", "--signal", "HUP", self.container("respaldo"))

    def compose(self, *args, **more):
        files = ["--file", self.folder / "compose.yml", "--file", self.folder / "override.yml"]
        return run("docker", "compose", "--project-name", "shows", "--progress", "plain", *files, *args, **more)

    def up(self, *services, **env):
        self.compose("up", "--detach", "--no-build", *services, env=env)

    def container(self, service):
        return f"shows-{service}-1"

    def inspect(self, service):
        return json.loads(run("docker", "inspect", self.container(service)))[0]

    def health(self):
        return self.inspect("respaldo")["State"]["Health"]["Status"]

    def respaldo(self, *args, **more):
        return run("docker", "exec", self.container("respaldo"), "respaldo", *args, **more)

    def runs(self, **wanted):
        """The newest first."""
        runs = json.loads(self.respaldo("status", "--json"))["runs"]
        runs = [run for run in runs if all(run[key] == value for key, value in wanted.items())]
        return sorted(runs, key=lambda run: run["id"], reverse=True)

    def backups(self, job):
        return json.loads(self.respaldo("list", job, "--json"))

    def sql(self, statement, database="shop"):
        user = ["psql", "--username=postgres", "--no-psqlrc", "-Atq", "-v", "ON_ERROR_STOP=1"]
        return run("docker", "exec", self.container("postgres"), *user, "-d", database, "-c", statement).strip()

    def mails(self):
        """The subjects of what was caught."""
        return re.findall(r"^Subject: (.*)$", run("docker", "logs", self.container("mail")), re.MULTILINE)

    def await_mail(self, pattern, since, seconds):
        seen = lambda: [mail for mail in self.mails()[since:] if re.search(pattern, mail, re.IGNORECASE)]
        return until(f"a mail like {pattern!r}; there are {self.mails()[since:]}", seen, seconds)[0]

    def await_postgres(self):
        until("postgres healthy", lambda: self.inspect("postgres")["State"]["Health"]["Status"] == "healthy", 90)


CONTENT = """
SELECT md5(string_agg(line, E'\\n' ORDER BY line)) FROM (
    SELECT o::text AS line FROM orders o UNION ALL SELECT c::text FROM customers c
) all_rows
"""


def stack_up(stack):
    """a database comes up, is backed up at once and then on schedule; the container is healthy"""
    stack.up()
    until("healthy", lambda: stack.health() == "healthy", 180)
    stack.sql(
        """
        CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, "Ünï" text[]);
        CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers, noise text);
        INSERT INTO customers SELECT n, 'customer ' || n, ARRAY['ä', NULL] FROM generate_series(1, 1000) n;
        INSERT INTO orders SELECT n, 1 + n % 1000, encode(sha256(n::text::bytea), 'base64')
            FROM generate_series(1, 400000) n;
        """
    )
    before = len(stack.backups("shop"))
    find = lambda: len(stack.backups("shop")) > before and stack.runs(job="shop", trigger="schedule", state="succeeded")
    found = until("a scheduled backup", find, 130)
    stored = stack.backups("shop")[0]
    states = {place["name"]: place["state"] for place in stored["destinations"]}
    check(states == {"local": "stored", "offsite": "stored"}, f"it is at {states}")
    check(stack.health() == "healthy", "not healthy after a scheduled backup")
    return f"run {found[0]['id']} on schedule, {stored['id']} on both destinations"


def hardened(stack):
    """read-only root, not root, no capability: backup, verify, drill and restore work, for both servers"""
    container = stack.inspect("respaldo")
    label = container["Config"]["Labels"]["org.opencontainers.image.version"]
    check(stack.respaldo("--version").split()[1] == label, f"the image says that it is {label}")
    settings = container["HostConfig"]
    check(settings["ReadonlyRootfs"] and settings["CapDrop"] == ["ALL"], "the example is not hardened")
    shell = lambda command, **more: run("docker", "exec", stack.container("respaldo"), "sh", "-c", command, **more)
    status = shell("cat /proc/1/status")
    for line in ["Uid:\t10001\t10001\t10001\t10001", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"]:
        check(line in status, f"{line!r} is not true of process 1:\n{status}")
    for folder in ["/", "/etc", "/usr/local/bin"]:
        shell(f"! touch {folder}/written 2>/dev/null")
    made = "CREATE TABLE post (id INT PRIMARY KEY, title TEXT); INSERT INTO post SELECT seq, MD5(seq) FROM seq_1_to_5000"
    run("docker", "exec", stack.container("mariadb"), "mariadb", "--socket=/tmp/mysql.sock", "blog", "-e", made)
    drilled = []
    for job in ["shop", "blog"]:
        stack.respaldo("backup", job)
        for answer in json.loads(stack.respaldo("verify", job, "--json")):
            check(answer["ok"] and answer["depth"] == "whole", f"verify: {answer}")
        drill = json.loads(stack.respaldo("drill", job, "--json", ok=(0, 1)))
        check(drill["proven"], f"the drill of {job}: {drill}")
        drilled.append(f"{job}: {len(drill['tables'])} tables in {drill['seconds']:.1f} s")
    stack.respaldo("restore", "shop", "--database", "shop_check", "--yes")
    check(stack.sql(CONTENT, "shop_check") == stack.sql(CONTENT), "shop_check differs from shop")
    return "; ".join(drilled)


def store_lost(stack):
    """S3 taken away: unhealthy after max_age, and a mail; back: healthy, and a mail"""
    mails = len(stack.mails())
    began = time.monotonic()
    stack.compose("stop", "s3")
    until("unhealthy", lambda: stack.health() == "unhealthy", 400)
    seconds = time.monotonic() - began
    late = stack.await_mail("late", mails, 240)
    stack.compose("start", "s3")
    until("healthy again", lambda: stack.health() == "healthy", 300)
    again = stack.await_mail("well again|recovered", mails, 120)
    return f"unhealthy after {seconds:.0f} s; mails: {late!r}, {again!r}"


def whole_server(stack):
    """the whole server, to one moment before a DELETE: prepared by respaldo, started by a container of stock postgres"""
    hba = 'echo "host replication postgres all scram-sha-256" >>"$0"'
    run("docker", "exec", stack.container("postgres"), "sh", "-c", hba, stack.sql("SHOW hba_file"))
    for setting in ["max_slot_wal_keep_size = '1GB'", "summarize_wal = 'on'"]:
        stack.sql(f"ALTER SYSTEM SET {setting}")
    stack.sql("SELECT pg_reload_conf()")
    stack.join("server.toml")
    stack.reload()
    until("the first base backup", lambda: stack.runs(job="server", kind="backup", state="succeeded"), 90)
    stack.sql("CREATE TABLE told AS SELECT n FROM generate_series(1, 1000) n")
    stack.respaldo("backup", "server", "--incremental")
    kind = stack.backups("server")[0]["kind"]
    check(kind == "incremental", f"the second one is {kind}")
    stack.sql("INSERT INTO told SELECT n FROM generate_series(1001, 2000) n")
    moment = stack.sql("SELECT clock_timestamp()")
    before = stack.sql(CONTENT)
    # Not of what the other shows need.
    stack.sql("DELETE FROM told")
    end = stack.sql("SELECT pg_current_wal_flush_lsn()")
    stored = lambda: json.loads(stack.respaldo("wal", "status", "server", "--json"))["stored_lsn"]
    is_behind = f"SELECT '{end}'::pg_lsn <= '%s'::pg_lsn"
    until("the DELETE is stored", lambda: stack.sql(is_behind % (stored() or "0/0")) == "t", 60)
    drill = json.loads(stack.respaldo("drill", "server", "--json", ok=(0, 1)))
    check(drill["proven"], f"the drill: {drill}")

    new = stack.folder / "new"
    new.mkdir()
    os.chown(new, RESPALDO_UID, RESPALDO_UID)
    began = time.monotonic()
    words = ["server", "--destination", "offsite", "--to-time", moment, "--data-dir", "/new/data", "--yes"]
    stack.compose("run", "--rm", "--no-TTY", "--volume", f"{new}:/new", "restore", *words)
    prepared = time.monotonic()
    name = "shows-recovered"
    run("docker", "run", "--detach", "--name", name, "--network", "none", "--volume",
        f"{new / 'data'}:/var/lib/postgresql/data", "respaldo-shows-postgres")  # fmt: skip
    try:
        def ask(statement):
            psql = ["psql", "--username=postgres", "--no-psqlrc", "-Atq", "-d", "shop", "-c", statement]
            return run("docker", "exec", name, *psql, ok=(0, 1, 2)).strip()

        until("it is open for writing", lambda: ask("SELECT pg_is_in_recovery()") == "f", 60)
        opened = time.monotonic()
        check(ask(CONTENT) == before, "what was recovered differs")
        check(ask("SELECT count(*) FROM told") == "2000", "the last rows before the moment are not there")
    finally:
        run("docker", "rm", "--force", name)
    # The other shows are about other jobs.
    (stack.folder / "config.d" / "server.toml").unlink()
    stack.reload()
    until("nobody receives the log", lambda: stack.sql("SELECT count(*) FROM pg_stat_replication") == "0", 60)
    stack.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    return (
        f"a chain of two and the log, drilled in {drill['seconds']:.1f} s; prepared in {prepared - began:.1f} s, "
        f"open {opened - prepared:.1f} s later, data equal"
    )


def slow_backup(stack):
    """A daemon whose backups take minutes, in the middle of one; its run."""
    stack.up("respaldo", BANDWIDTH="80kB/s")
    return until("a backup under way", lambda: stack.runs(job="shop", kind="backup", state="running"), 150)[0]


def ended_truthfully(stack, broken, states):
    until("the daemon answers", lambda: stack.inspect("respaldo")["State"]["Running"], 30)
    now = lambda: next(iter(stack.runs(id=broken["id"], state="running")), None) is None
    until("the run is over", now, 60)
    state = stack.runs(id=broken["id"])[0]["state"]
    check(state in states, f"the run was recorded as {state}")
    return state


def stopped(stack):
    """docker stop in the middle of a backup: over within the grace period, the run recorded"""
    broken = slow_backup(stack)
    began = time.monotonic()
    run("docker", "stop", stack.container("respaldo"))
    seconds = time.monotonic() - began
    code = stack.inspect("respaldo")["State"]["ExitCode"]
    check(code != 137 and seconds < GRACE, f"it took {seconds:.0f} s and exited {code}: it was killed")
    run("docker", "start", stack.container("respaldo"))
    state = ended_truthfully(stack, broken, ["interrupted", "cancelled"])
    return f"{seconds:.1f} s, exit code {code}, run {broken['id']} {state}"


def killed(stack):
    """docker kill in the middle of a backup: the next start tells the truth about the run"""
    broken = slow_backup(stack)
    run("docker", "kill", stack.container("respaldo"))
    run("docker", "start", stack.container("respaldo"))
    state = ended_truthfully(stack, broken, ["interrupted"])
    stack.up("respaldo")
    newest = lambda: stack.runs(job="shop", kind="backup", state="succeeded")[:1]
    until("a whole backup after it", lambda: newest() and newest()[0]["id"] > broken["id"], 180)
    until("healthy", lambda: stack.health() == "healthy", 120)
    return f"run {broken['id']} {state}, then a whole one"


def disaster(stack):
    """the database and respaldo's own volumes are lost: a new server, and one command, from S3 alone"""
    before = stack.sql(CONTENT)
    stack.compose("rm", "--stop", "--force", "--volumes", "respaldo", "postgres")
    for volume in ["postgres_data", "respaldo_data", "respaldo_backups"]:
        run("docker", "volume", "rm", f"shows_{volume}")
    began = time.monotonic()
    stack.up("postgres")
    stack.await_postgres()
    there = stack.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    check(there == "0", f"the new server holds {there} tables")
    ready = time.monotonic()
    stack.compose("run", "--rm", "--no-TTY", "restore", "shop", "--destination", "offsite", "--trust", "--yes")
    done = time.monotonic()
    check(stack.sql(CONTENT) == before, "what was restored differs")
    return f"new server {ready - began:.1f} s, the command {done - ready:.1f} s, data equal"


EXISTING = """
services:
  postgres:
    image: respaldo-shows-postgres
    pull_policy: never
    environment: { POSTGRES_DB: grupogad, POSTGRES_PASSWORD_FILE: /run/secrets/db_password }
    secrets: [db_password]
  s3:
    image: respaldo-shows-s3
    pull_policy: never
    command: ["sh", "-c", "mkdir -p /data/grupogad-backups && exec s3_server /data 0.0.0.0:9000 key-id secret-key"]
"""
# The one thing that whoever uses AWS itself does not set.
ENDPOINT = """
services:
  respaldo: { environment: { AWS_ENDPOINT_URL: "http://s3:9000" } }
  restore: { environment: { AWS_ENDPOINT_URL: "http://s3:9000" } }
"""


def drop_in(stack):
    """docker-compose.backup.yml beside somebody's stack, its S3 lines switched on: all of it lost, back from S3"""
    folder = stack.folder / "existing"
    (folder / "secrets").mkdir(parents=True)
    for name, value in [("db_password", "one"), ("aws_access_key_id", "key-id"), ("aws_secret_access_key", "secret-key")]:
        (folder / "secrets" / name).write_text(value)
        os.chown(folder / "secrets" / name, RESPALDO_UID, RESPALDO_UID)
    shipped = (EXAMPLE.parent.parent / "docker-compose.backup.yml").read_text()
    switched_on = re.sub(r"^( *)# (S3_|AWS_|- aws_|aws_|  file: )", r"\1\2", shipped, flags=re.MULTILINE)
    check(switched_on.count("aws_") == shipped.count("aws_") and switched_on != shipped, "there is nothing to switch on")
    files = []
    for name, text in [("docker-compose.yml", EXISTING), ("docker-compose.backup.yml", switched_on), ("e.yml", ENDPOINT)]:
        (folder / name).write_text(text)
        files += ["--file", folder / name]

    def compose(*args):
        return run("docker", "compose", "--project-name", "existing", *files, *args, env={"DB_NAME": "grupogad"})

    def make(*words):
        through = f"COMPOSE=docker compose --project-name existing -f {folder / 'e.yml'}"
        return run("make", "--directory", folder, *words, through, env={"DB_NAME": "grupogad"})

    def sql(statement):
        psql = ["psql", "--username=postgres", "-Atq", "-d", "grupogad", "-c", statement]
        return run("docker", "exec", "existing-postgres-1", *psql, ok=(0, 1, 2)).strip()

    def respaldo(*args):
        return run("docker", "exec", "existing-respaldo-1", "respaldo", *args, ok=(0, 1))

    def listens():
        asked = ["pg_isready", "--host=127.0.0.1"]
        return "accepting" in run("docker", "exec", "existing-postgres-1", *asked, ok=(0, 1, 2))

    try:
        compose("up", "--detach", "--no-build", "postgres", "s3")
        until("PostgreSQL listens", listens, 60)
        sql("CREATE TABLE kept AS SELECT 42 AS answer")
        compose("up", "--detach", "--no-build", "respaldo")
        until("it is well", lambda: respaldo("health").startswith("healthy"), 60)
        places = {place["name"]: place["state"] for place in json.loads(respaldo("list", "db", "--json"))[0]["destinations"]}
        check(places == {"local": "stored", "s3": "stored"}, f"the backup is at {places}")
        # By the targets of their own Makefile, on a dump of before and on a backup.
        (folder / "Makefile").write_text(f"include {EXAMPLE.parent.parent / 'backup.mk'}\n")
        dump = run("docker", "exec", "existing-postgres-1", "pg_dump", "--username=postgres", "grupogad")
        (folder / "dump_20251124_020000.sql").write_text(dump)
        make("backup")
        check("backup" in make("backup-list"), "the list is empty")
        make("backup-verify", "JOB=db")
        make("backup-verify", f"BACKUP_FILE={folder / 'dump_20251124_020000.sql'}")
        # A slip, beside the running daemon.
        for named in ["JOB=db", f"BACKUP_FILE={folder / 'dump_20251124_020000.sql'}"]:
            sql("DROP TABLE kept")
            make("backup-restore", named, "YES=1")
            check(sql("SELECT answer FROM kept") == "42", f"the table is not back by {named}")
        # A lost machine, of which S3 is left.
        compose("rm", "--stop", "--force", "--volumes", "respaldo", "postgres")
        run("docker", "volume", "rm", "existing_respaldo_data", "existing_respaldo_backups")
        compose("up", "--detach", "--no-build", "postgres")
        until("a new server", listens, 60)
        compose("run", "--rm", "--no-TTY", "restore", "db", "--destination", "s3", "--trust", "--yes")
        check(sql("SELECT answer FROM kept") == "42", "the table is not back from S3")
    finally:
        compose("--profile", "restore", "down", "--volumes", "--timeout", "5")
    return "restored beside the running daemon, and from S3 alone"


SHOWS = [stack_up, hardened, whole_server, store_lost, stopped, killed, disaster, drop_in]


def main(names):
    shows = [show for show in SHOWS if not names or show.__name__ in names]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="respaldo-shows-") as folder:
        stack = Stack(Path(folder))
        try:
            for show in shows:
                start = time.monotonic()
                said = show(stack)
                print(f"ok    {show.__doc__}\n      {said} ({time.monotonic() - start:.0f} s)", flush=True)
        except (Failed, subprocess.TimeoutExpired) as failure:
            print(f"FAILED {show.__doc__}\n{failure}", flush=True)
            print(stack.compose("logs", "--tail", "60", "--no-color"))
            sys.exit(1)
        finally:
            stack.compose("--profile", "restore", "down", "--volumes", "--timeout", "5")
    print(f"{len(shows)} shows in {time.monotonic() - began:.0f} s")


main(sys.argv[1:])
