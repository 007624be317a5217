"""Whole servers: respaldo's base backups beside pgBackRest's, the log beside pgbench, and the way back.

One cluster, PostgreSQL 15, default durability. Both tools back it up in turn, round after round, each into an
empty local folder, compressed with zstd at level 1, every file digested, with its log archived.

CPU is counted the same way for both, in two parts: of the command and all that it waited for (rusage), and of the
server with all its children, those that have ended too (/proc/PID/stat of the whole tree before and after). The
second holds for respaldo what its connections cost the server; for pgBackRest its archive_command.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import bench
from bench import PG_BIN, RESPALDO, S3, S3_SERVER, Failed, Postgres, environment, measure, run, stop

PGBACKREST = pathlib.Path("/usr/bin/pgbackrest")
STANZA = "bench"
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20


def tree_cpu(pid):
    """Seconds of CPU of a process, of its children that have ended, and of those that live, all the way down."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        own = sum(int(field) for field in fields[11:15]) / TICKS
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return own + sum(tree_cpu(child) for child in children)


def beside_server(postgres, work):
    """Runs `work`, which gives a measurement, and adds what the server spent meanwhile."""
    postgres.sql("CHECKPOINT")
    before = tree_cpu(postgres.child.pid)
    took = work()
    return took | {"server_cpu": tree_cpu(postgres.child.pid) - before}


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def lsn(text):
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


class Server(Postgres):
    def __init__(self, home):
        super().__init__(home, max_slot_wal_keep_size="20GB", archive_mode="on")

    def wait(self):
        super().wait()
        self.archive_by("/bin/true")

    def archive_by(self, command):
        self.sql("ALTER SYSTEM SET archive_command = '" + command.replace("'", "''") + "'")
        self.sql("SELECT pg_reload_conf()")
        while self.sql("SHOW archive_command") != command:
            time.sleep(0.05)

    def here(self):
        return lsn(self.sql("SELECT pg_current_wal_flush_lsn()"))

    def pgbench(self, seconds):
        """Writes as fast as it can, waiting for no fsync, and says how many bytes of log came of it."""
        # The first change of a page behind a checkpoint logs all of it: so each time begins alike.
        self.sql("CHECKPOINT")
        start, began = self.here(), time.monotonic()
        run([PG_BIN / "pgbench", "-n", "-c", "4", "-j", "2", "-T", str(seconds), "bench"],
            env=self.env() | {"PGOPTIONS": "-c synchronous_commit=off"})
        return self.here() - start, time.monotonic() - began


class PgBackRest:
    name = "pgbackrest"
    title = "pgBackRest full, zst 1, two processes"

    def run(self, folder, postgres):
        home = folder / "pgbackrest"
        home.mkdir()
        # It reads the server's files themselves, so it runs as who owns them.
        shutil.chown(folder, postgres.owner)
        shutil.chown(home, postgres.owner)
        config = home / "pgbackrest.conf"
        config.write_text(
            f"[global]\nrepo1-path={home}/repo\nlog-path={home}\nlock-path={home}/lock\nspool-path={home}/spool\n"
            f"log-level-console=warn\nlog-level-file=off\ncompress-type=zst\ncompress-level=1\nprocess-max=2\nstart-fast=y\n"
            f"[{STANZA}]\npg1-path={postgres.data}\npg1-port={postgres.port}\npg1-socket-path={postgres.home}\n"
            f"pg1-user=bench\npg1-database=postgres\n")
        env, command = postgres.env(), [str(PGBACKREST), f"--config={config}", f"--stanza={STANZA}"]
        run([*command, "stanza-create"], env=env, cwd=folder, user=postgres.owner)
        postgres.archive_by(f"{PGBACKREST} --config={config} --stanza={STANZA} archive-push %p")
        try:
            run([*command, "check"], env=env, cwd=folder, user=postgres.owner)
            took = beside_server(postgres, lambda: measure(
                [*command, "--type=full", "backup"], env, folder, postgres.owner))
        finally:
            postgres.archive_by("/bin/true")
        return took | {"stored": size_of(home / "repo" / "backup")}


class Respaldo:
    name = "respaldo"
    title = "respaldo: base backup and its log, zstd, digests"

    def run(self, folder, postgres):
        command = self.prepare(folder, postgres)
        # Its catalog is made once in the life of a daemon, as a stanza is.
        run([*command, "status"])
        took = beside_server(postgres, lambda: measure([*command, "backup", "db"], environment(), folder))
        (manifest,) = (folder / "local" / "db").glob("*/manifest.json")
        if json.loads(manifest.read_text())["kind"] != "full":
            raise Failed("no full backup was made")
        run([*command, "wal", "detach", "db"])
        return took | {"stored": size_of(manifest.parent)}

    def prepare(self, folder, postgres, place=None):
        (folder / "local").mkdir(exist_ok=True)
        config = folder / "respaldo.toml"
        config.touch(mode=0o600)
        listen = bench.free_port()
        config.write_text(
            f'timezone = "UTC"\ndata_dir = "{folder}/data"\n[server]\nlisten = "127.0.0.1:{listen}"\n'
            f'[destinations.local]\n{place or f"""url = "file://{folder}/local" """}\n'
            f'[jobs.db]\nsource = {{ postgres = "postgres://bench@127.0.0.1:{postgres.port}/bench", '
            f'password = "{postgres.password}", kind = "physical" }}\n')
        return [str(RESPALDO), "--config", str(config)]


CASES = [PgBackRest(), Respaldo()]


def backups(home, postgres, rounds):
    all_rounds = []
    for number in range(rounds):
        took = {}
        for case in CASES:
            folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{case.name}-", dir=home))
            try:
                folder.chmod(0o755)
                took[case.name] = case.run(folder, postgres)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            one = took[case.name]
            print(f"round {number + 1}/{rounds} {case.name:<11} {one['wall']:6.2f} s, CPU {one['cpu']:5.2f} + "
                  f"{one['server_cpu']:5.2f} s", file=sys.stderr, flush=True)
        all_rounds.append(took)
    return all_rounds


def total(one):
    return one["cpu"] + one["server_cpu"]


def table(rounds):
    print(f"\n{'':<50} {'wall s':>7} {'(range)':>14} {'CPU s':>6} {'command':>8} {'server':>7} {'stored MB':>10} {'peak MiB':>9}")
    for case in CASES:
        of = [took[case.name] for took in rounds]
        middle = {key: statistics.median(one[key] for one in of) for key in ("wall", "cpu", "server_cpu", "stored")}
        walls, both = [one["wall"] for one in of], statistics.median(total(one) for one in of)
        print(f"{case.title:<50} {middle['wall']:>7.2f} {f'({min(walls):.2f}-{max(walls):.2f})':>14} {both:>6.2f} "
              f"{middle['cpu']:>8.2f} {middle['server_cpu']:>7.2f} {middle['stored'] / 1e6:>10.1f} "
              f"{max(one['largest_peak'] for one in of) / MIB:>9.1f}")
    ratio = {
        "wall": statistics.median(t["respaldo"]["wall"] / t["pgbackrest"]["wall"] for t in rounds),
        "CPU": statistics.median(total(t["respaldo"]) / total(t["pgbackrest"]) for t in rounds),
    }
    for what, value in ratio.items():
        print(f"  {'met   ' if value <= 1 else 'MISSED'} {what}: at most 1.0 times pgBackRest's: {value:.2f}")
    return ratio


class Daemon:
    def __init__(self, command, folder):
        self.command = command
        self.log = open(folder / "daemon.log", "w")
        self.child = subprocess.Popen([*command, "run"], env=environment(), cwd=folder, stdin=subprocess.DEVNULL,
                                      stdout=self.log, stderr=self.log)

    def wait_for(self, end):
        while True:
            said = subprocess.run([*self.command, "wal", "status", "db", "--json"], env=environment(),
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            if said.returncode == 0 and lsn(json.loads(said.stdout)["stored_lsn"]) >= end:
                return
            if self.child.poll() is not None:
                raise Failed("the daemon ended")
            time.sleep(0.05)

    def stop(self):
        stop(self.child, 15)
        self.log.close()


def log(home, postgres, seconds):
    """What pgbench writes, with and without a daemon beside it, and how fast what has piled up is stored."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="log-", dir=home))
    command = Respaldo().prepare(folder, postgres)
    run([*command, "backup", "db"])
    alone, spent = postgres.pgbench(seconds)
    rate_alone = alone / spent
    began = time.monotonic()
    daemon = Daemon(command, folder)
    try:
        daemon.wait_for(postgres.here())
        rate_stored = alone / (time.monotonic() - began)
        beside, spent = postgres.pgbench(seconds)
        end, ended = postgres.here(), time.monotonic()
        daemon.wait_for(end)
        behind = time.monotonic() - ended
    finally:
        daemon.stop()
    checked = run([*command, "wal", "check", "db", "--json"])
    if not json.loads(checked)["ok"]:
        raise Failed("the log has a gap")
    run([*command, "wal", "detach", "db"])
    shutil.rmtree(folder)
    found = {"pgbench_alone": rate_alone, "stored": rate_stored, "pgbench_beside": beside / spent, "behind": behind}
    print(f"\nlog: pgbench alone writes {rate_alone / 1e6:.1f} MB/s; what has piled up is stored at {rate_stored / 1e6:.1f} MB/s; "
          f"beside the daemon pgbench writes {beside / spent / 1e6:.1f} MB/s, and all of it is stored {behind:.1f} s after its end")
    print(f"  {'met   ' if rate_stored > rate_alone else 'MISSED'} the log is stored faster than pgbench writes it: "
          f"{rate_stored / rate_alone:.1f} times")
    return found


def fetch(home, postgres, segments):
    """A recovery's fetch from S3: one file of the log after the other, and eight at once."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fetch-", dir=home))
    s3 = S3(home / "s3")
    try:
        command = Respaldo().prepare(folder, postgres, (
            f'url = "s3://bench/physical/"\nendpoint = "{s3.endpoint}"\nregion = "us-east-1"\n'
            f'access_key_id = "{s3.access}"\nsecret_access_key = "{s3.secret}"'))
        run([*command, "backup", "db"])
        start = postgres.here()
        postgres.sql("CREATE TABLE filler (line text)", "bench")
        while postgres.here() - start < segments * 16 * MIB:
            postgres.sql("INSERT INTO filler SELECT md5(n::text) FROM generate_series(1, 200000) n", "bench")
        daemon = Daemon(command, folder)
        try:
            daemon.wait_for(postgres.here())
        finally:
            daemon.stop()
        found = {}
        for jobs in (1, 8):
            to = folder / f"data-{jobs}"
            took = measure([*command, "restore", "db", "--latest", "--yes", "--jobs", str(jobs), "--data-dir", str(to)],
                           environment(), folder)
            found[jobs] = took["wall"]
            shutil.rmtree(to)
        run([*command, "wal", "detach", "db"])
    finally:
        s3.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\nrecovery from S3, base backup and {segments} segments of the log: {found[1]:.1f} s with one file at a time, "
          f"{found[8]:.1f} s with eight ({found[1] / found[8]:.2f} times as fast)")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1, help="1 is a 1.1 GB cluster")
    parser.add_argument("--seconds", type=int, default=20, help="for how long pgbench writes")
    parser.add_argument("--only", default="backup,log,fetch")
    options = parser.parse_args()
    for program in (PG_BIN / "initdb", PGBACKREST, RESPALDO, S3_SERVER):
        if not program.exists():
            sys.exit(f"bench: {program} is missing; `make bench` installs and builds what this needs")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    home = pathlib.Path(tempfile.mkdtemp(prefix="respaldo-bench-", dir=os.environ.get("BENCH_DIR", "/var/tmp")))
    try:
        home.chmod(0o755)
        postgres = Server(home / "postgres")
        try:
            postgres.wait()
            print("filling a cluster ...", file=sys.stderr, flush=True)
            postgres.fill(options.scale)
            results = {"bytes": size_of(postgres.data / "base")}
            print(f"{results['bytes'] / 1e9:.2f} GB, {options.rounds} rounds, medians; ratios within a round")
            if "backup" in options.only:
                results["backup"] = backups(home, postgres, options.rounds)
                results["ratio"] = table(results["backup"])
            if "log" in options.only:
                results["log"] = log(home, postgres, options.seconds)
            if "fetch" in options.only:
                results["fetch"] = fetch(home, postgres, 40)
        finally:
            postgres.stop()
    except Failed as failure:
        sys.exit(f"bench: {failure}")
    finally:
        shutil.rmtree(home, ignore_errors=True)
    out = bench.REPO / "bench" / "physical.json"
    out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nall rounds: {out.relative_to(bench.REPO)}", file=sys.stderr)


if __name__ == "__main__":
    main()
