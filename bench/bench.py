"""respaldo beside pg_dump, the pipelines it replaces, and a shell pipe: ratios on one machine.

Starts a throw-away PostgreSQL 15 and an S3 server, fills a database, and runs every case in turn,
round after round, so that a noisy minute hits all of them alike. A round's ratio is its wall time
over that same round's floor; the table shows medians. Only ratios mean anything on another machine.

Needs nothing but the standard library. `make bench` builds what it runs.
"""

import argparse
import getpass
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

REPO = pathlib.Path(__file__).resolve().parent.parent
RELEASE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target")).resolve() / "release"
RESPALDO = RELEASE / "respaldo"
S3_SERVER = RELEASE / "examples" / "s3_server"
# Of all installed versions this one, for every case: the server's own.
PG_BIN = pathlib.Path("/usr/lib/postgresql/15/bin")
MIB = 1 << 20

FLOOR = "floor"
SHELL_PIPE = "shell"
SHELL_S3 = "shells3"
SHELL_AGE = "shellage"
SHELL_STREAMS = "shellstreams"
PG_RESTORE = "pg_restore"
RESTORED = "bench_restored"
TWO_STREAMS = """
coproc SNAPSHOT { psql -XqAt; }
echo 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_export_snapshot();' >&"${SNAPSHOT[1]}"
read -r id <&"${SNAPSHOT[0]}"
pg_dump -Fc -Z0 --snapshot="$id" --data-only -t public.events | zstd -q -1 >events.zst & events=$!
pg_dump -Fc -Z0 --snapshot="$id" --exclude-table-data=public.events | zstd -q -1 >main.zst
wait $events
"""
# Of a private key that nobody kept: what is encrypted here is never opened.
AGE_KEY = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"

EVENTS = """
CREATE TABLE public.events (
    id bigint PRIMARY KEY, at timestamptz NOT NULL, kind text NOT NULL, payload jsonb NOT NULL, note text
);
INSERT INTO public.events
SELECT i,
       timestamptz '2024-01-01 00:00:00Z' + i * interval '7 seconds',
       (ARRAY['login', 'view', 'cart', 'order', 'refund'])[1 + i * 7919 % 5],
       jsonb_build_object(
           'user', i * 7919 % 50021, 'ref', md5(i::text), 'amount', (i * 104729 % 1000003) / 100.0,
           'tags', jsonb_build_array('shop', 'web', 'v' || i % 12)),
       CASE WHEN i % 10 = 0 THEN NULL
            ELSE 'Order ' || i || ' of customer ' || i * 7919 % 50021 || repeat(', as agreed by phone', (i % 4)::int) END
FROM generate_series(1::bigint, :rows) AS i;
"""


class Failed(Exception):
    """A command that this needs went wrong; what it said is in the message."""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def environment(**extra):
    """Explicit, so that no PG*, AWS_* or RESPALDO_* of the person's own shell takes part."""
    return {"PATH": f"{PG_BIN}:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", **extra}


def stop(child, how):
    if child.poll() is None:
        child.send_signal(how)
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class Postgres:
    """A server of its own: default durability, nothing that would run by itself in a measurement."""

    def __init__(self, home, **more):
        # PostgreSQL refuses to run as root.
        self.owner = "postgres" if os.getuid() == 0 else getpass.getuser()
        identity = {"user": self.owner, "group": self.owner, "extra_groups": []} if os.getuid() == 0 else {}
        home.mkdir()
        if identity:
            shutil.chown(home, self.owner, self.owner)
        self.port, self.password = free_port(), secrets.token_hex(12)
        self.home, self.data = home, home / "data"
        data, pwfile = self.data, home / "password"
        pwfile.write_text(self.password)
        if identity:
            shutil.chown(pwfile, self.owner)
        run([PG_BIN / "initdb", "-D", data, "-U", "bench", "-A", "scram-sha-256", "--pwfile", pwfile,
             "-E", "UTF8", "--locale=C.UTF-8"], cwd=home, **identity)
        self.log = open(home / "log", "w+")
        options = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": home,
                   "autovacuum": "off", "max_wal_size": "8GB", "checkpoint_timeout": "1h",
                   "shared_buffers": "256MB", **more}
        self.child = subprocess.Popen(
            [PG_BIN / "postgres", "-D", data, *(f"--{k}={v}" for k, v in options.items())],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd=home, env=environment(), **identity)

    def env(self):
        return environment(PGHOST="127.0.0.1", PGPORT=str(self.port), PGUSER="bench", PGPASSWORD=self.password)

    def wait(self):
        for _ in range(300):
            if self.child.poll() is not None:
                self.log.seek(0)
                raise Failed("PostgreSQL did not start:\n" + self.log.read())
            if subprocess.run([PG_BIN / "pg_isready", "-q"], env=self.env()).returncode == 0:
                return
            time.sleep(0.1)
        raise Failed("PostgreSQL did not answer within 30 s")

    def sql(self, text, database="postgres"):
        return run([PG_BIN / "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database], input=text,
                   env=self.env()).strip()

    def fill(self, scale):
        self.sql("CREATE DATABASE bench")
        run([PG_BIN / "pgbench", "-i", "-q", "-s", str(max(1, round(40 * scale))), "bench"], env=self.env())
        self.sql(EVENTS.replace(":rows", str(max(1, round(2_000_000 * scale))))
                 + "VACUUM ANALYZE; CHECKPOINT;", "bench")
        return int(self.sql("SELECT pg_database_size('bench')"))

    def drop(self, name):
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self.sql("CHECKPOINT")

    def empty(self):
        self.sql("DROP DATABASE bench")

    def stop(self):
        stop(self.child, signal.SIGINT)  # "fast": ends the sessions, keeps the files whole
        self.log.close()


class S3:
    def __init__(self, root):
        self.root = root
        (root / "bench").mkdir(parents=True)
        self.access, self.secret = "bench", secrets.token_hex(16)
        self.child = subprocess.Popen([S3_SERVER, root, "0", self.access, self.secret], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, text=True, env=environment())
        said = self.child.stdout.readline().strip()
        if not said.startswith("listening on "):
            raise Failed(f"the S3 server did not start: {said!r}")
        self.endpoint = "http://" + said.removeprefix("listening on ")

    def stop(self):
        stop(self.child, signal.SIGTERM)
        self.child.stdout.close()


def run(command, **options):
    options.setdefault("env", environment())
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          **({} if "input" in options else {"stdin": subprocess.DEVNULL}), **options)
    if done.returncode:
        raise Failed(f"{command[0]} exited {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def peaks(pid, seen):
    """Notes the high-water mark of a process and of its children. The kernel keeps the mark, so that
    few samples do; `ru_maxrss` would start at what this script itself has."""
    try:
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                seen[pid] = int(line.split()[1]) * 1024
        for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            peaks(int(child), seen)
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has just ended


def measure(command, env, cwd, user=None):
    """Wall, CPU of the process and all it waited for, and peak memory: of the process itself and of
    the largest in its tree."""
    os.sync()  # what the case before it wrote is not this one's burden
    seen, ended = {}, threading.Event()
    with tempfile.TemporaryFile() as said:
        start = time.monotonic()
        child = subprocess.Popen(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                 user=user)

        def watch():
            while not ended.wait(0.05):
                peaks(child.pid, seen)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
            wall = time.monotonic() - start
            child.returncode = os.waitstatus_to_exitcode(status)
        finally:
            ended.set()
            watcher.join()
            if child.returncode is None:
                stop(child, signal.SIGTERM)
        if child.returncode:
            said.seek(0)
            raise Failed(f"{command[0]} exited {child.returncode}: {said.read().decode(errors='replace').strip()}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime,
            "peak": seen.get(child.pid, 0), "largest_peak": max(seen.values(), default=0)}


class Pipe:
    """A shell pipeline in an empty folder. pipefail, so that a pg_dump that failed is not a time."""

    def __init__(self, text, keeps, uploads=False):
        self.text, self.keeps, self.uploads = text, keeps, uploads

    def run(self, folder, postgres, s3):
        env = postgres.env() | {"PGDATABASE": "bench"}
        if self.uploads:
            env |= {"S3": f"{s3.endpoint}/bench/{folder.name}", "S3_USER": f"{s3.access}:{s3.secret}"}
        took = measure(["/bin/bash", "-o", "pipefail", "-ec", self.text], env, folder)
        if self.uploads:
            if (s3.root / "bench" / folder.name).read_bytes() != (folder / self.keeps).read_bytes():
                raise Failed("what was uploaded is not what was kept")
            (s3.root / "bench" / folder.name).unlink()
        kept = (folder / self.keeps).stat().st_size if self.keeps else 0
        return took | {"peak": took["largest_peak"], "stored": kept}


class Respaldo:
    """One `respaldo backup`, with destinations as new as the folder; its catalog is made before, as it is once in
    the life of a daemon."""

    def __init__(self, destinations, compression=None, source="", more=""):
        self.destinations, self.compression, self.source, self.more = destinations, compression, source, more

    def config(self, folder, postgres, s3):
        text = [f'timezone = "UTC"\ndata_dir = "{folder}/data"\n']
        for name in self.destinations:
            text.append(f"[destinations.{name}]")
            if name == "s3":
                text.append(f'url = "s3://bench/{folder.name}/"\nendpoint = "{s3.endpoint}"\nregion = "us-east-1"\n'
                            f'access_key_id = "{s3.access}"\nsecret_access_key = "{s3.secret}"\n')
            else:
                text.append(f'url = "file://{folder}/{name}"\n')
        text.append(f'[jobs.db]\nschedule = "0 1 * * *"\nsource = {{ {self.of(folder, postgres)} }}\n'
                    f'keep = {{ {", ".join(f"{name} = {{}}" for name in self.destinations)} }}')
        if self.compression:
            text.append(f'compression = "{self.compression}"')
        text.append(self.more)
        return "\n".join(text) + "\n"

    def of(self, _folder, postgres):
        return (f'postgres = "postgres://bench@127.0.0.1:{postgres.port}/bench", '
                f'password = "{postgres.password}"{self.source}')

    def check(self, manifest):
        tool = manifest["sources"][0].get("tool", "")
        if " 15" not in tool:
            raise Failed(f"dumped with {tool!r}, not with pg_dump 15")

    def run(self, folder, postgres, s3):
        config = folder / "respaldo.toml"
        config.touch(mode=0o600)
        config.write_text(self.config(folder, postgres, s3))
        for name in self.destinations:
            if name != "s3":
                (folder / name).mkdir()
        run([str(RESPALDO), "--config", str(config), "status"])
        took = measure([str(RESPALDO), "--config", str(config), "backup", "db"], environment(), folder)

        copies = {name: (s3.root / "bench" / folder.name if name == "s3" else folder / name)
                  for name in self.destinations}
        for name, copy in copies.items():
            manifests = list(copy.rglob("manifest.json"))
            if len(manifests) != 1:
                raise Failed(f"{len(manifests)} manifests in {name}, not one")
            manifest = json.loads(manifests[0].read_text())
            self.check(manifest)
            for artifact in manifest["artifacts"]:
                # The time counts only when every byte is there.
                with open(manifests[0].parent / artifact["name"], "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                if f"{digest}  {artifact['name']}" not in (manifests[0].parent / "SHA256SUMS").read_text():
                    raise Failed(f"{artifact['name']} in {name} is not what SHA256SUMS says")
        shutil.rmtree(s3.root / "bench" / folder.name, ignore_errors=True)
        kept = sum(p.stat().st_size for p in copies[self.destinations[0]].rglob("*") if p.is_file())
        return took | {"stored": kept}


class Codec(Respaldo):
    """The same of a plain dump in a file, as it is."""

    def of(self, folder, _postgres):
        return f'command = ["cat", "{folder.parent}/plain/dump.sql"], name = "plain", extension = "sql"'

    def check(self, manifest):
        if manifest["sources"][0]["engine"] != "command":
            raise Failed("no file was backed up")


class Stock:
    """A restore by stock tools, into an empty database, of a dump in a local file."""

    def __init__(self, make, text):
        self.make, self.text = make, text

    def prepare(self, shared, postgres, _s3):
        run(["/bin/bash", "-o", "pipefail", "-ec", self.make], cwd=shared, env=postgres.env() | {"PGDATABASE": "bench"})

    def run(self, folder, postgres, _s3):
        postgres.sql(f"CREATE DATABASE {RESTORED}")
        try:
            env = postgres.env() | {"PGDATABASE": RESTORED}
            return measure(["/bin/bash", "-o", "pipefail", "-ec", self.text], env, folder.parent / "restore") | {"stored": 0}
        finally:
            postgres.drop(RESTORED)


class Restored(Respaldo):
    """`respaldo restore` of a backup that lies in S3 alone, encrypted: every digest and every table is
    compared, and the new database analyzed."""

    def __init__(self, name, source=""):
        super().__init__(["s3"], source=source)
        self.name = name

    def prepare(self, shared, postgres, s3):
        home = shared / self.name
        home.mkdir()
        said = subprocess.run([RESPALDO, "key", "generate", "-o", home / "key"], env=environment(), check=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
        self.more = f'encrypt = {{ age = ["age1{said.split("age1")[1].split()[0]}"] }}'
        config = home / "respaldo.toml"
        config.touch(mode=0o600)
        config.write_text(self.config(home, postgres, s3))
        run([RESPALDO, "--config", config, "backup", "db"])

    def run(self, folder, postgres, _s3):
        home = folder.parent / "restore" / self.name
        try:
            return measure([str(RESPALDO), "--config", str(home / "respaldo.toml"), "restore", "db", "--yes", "--database",
                            RESTORED, "--identity", str(home / "key")], environment(), folder) | {"stored": 0}
        finally:
            postgres.drop(RESTORED)


CASES = {
    FLOOR: ("pg_dump -Fc -Z0 > /dev/null (the floor)", Pipe("pg_dump -Fc -Z0 >/dev/null", None)),
    # A copy stands for the upload to S3, in the script's favour.
    "seed000": ("seed 000: gzip, then sha256sum, then a copy", Pipe(
        "pg_dump | gzip >db.sql.gz; sha256sum db.sql.gz >db.sha256; mkdir copy; cp db.sql.gz copy/", "db.sql.gz")),
    "seed001": ("seed 001: gzip, so -6 (one copy, no digest)", Pipe("pg_dump | gzip >db.sql.gz", "db.sql.gz")),
    SHELL_PIPE: ("shell pipe: zstd -1 -T2, sha256sum, two copies", Pipe(
        "pg_dump -Fc -Z0 | zstd -q -1 -T2 | tee db.zst | tee copy.zst | sha256sum >db.sha256", "db.zst")),
    # By itself it can't stream to S3: what is stored goes there afterwards.
    SHELL_S3: ("shell pipe: zstd -1 -T2, sha256sum, a file, curl to S3", Pipe(
        "pg_dump -Fc -Z0 | zstd -q -1 -T2 | tee db.zst | sha256sum >db.sha256; "
        'curl -sSf --aws-sigv4 aws:amz:us-east-1:s3 -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" -u "$S3_USER" '
        '-T db.zst "$S3"', "db.zst", uploads=True)),
    SHELL_AGE: ("shell pipe: the same, encrypted with age", Pipe(
        f"pg_dump -Fc -Z0 | zstd -q -1 -T2 | age -r {AGE_KEY} | tee db.zst.age | tee copy.zst.age "
        "| sha256sum >db.sha256", "db.zst.age")),
    # What two streams can give at the most: nothing is digested, counted or copied.
    SHELL_STREAMS: ("shell: two streams of one snapshot, zstd -1 each", Pipe(TWO_STREAMS, "main.zst")),
    "s3": ("respaldo: zstd, digests, local + S3", Respaldo(["local", "s3"])),
    "local": ("respaldo: zstd, digests, two local folders", Respaldo(["local", "second"])),
    "streams": ("respaldo: as local + S3, large tables in 2 streams", Respaldo(
        ["local", "s3"], source=', streams = 2, streams_above = "64MiB"')),
    "lean": ("respaldo: one local folder, 2 streams, no fingerprint", Respaldo(
        ["local"], source=', streams = 2, streams_above = "64MiB", fingerprint = "off"')),
    "off": ("respaldo: one local folder, no fingerprint", Respaldo(["local"], source=', fingerprint = "off"')),
    "counts": ("respaldo: one local folder, rows counted", Respaldo(["local"], source=', fingerprint = "counts"')),
    "content": ("respaldo: one local folder, content hashed", Respaldo(["local"], source=', fingerprint = "content"')),
    "encrypt": ("respaldo: zstd, age, digests, local + S3", Respaldo(
        ["local", "s3"], more=f'encrypt = {{ age = ["{AGE_KEY}"] }}')),
    "gzip": ("respaldo: gzip, digests, one local folder", Respaldo(["local"], "gzip")),
    # Without a database that feeds them: the codecs alone, on the same file.
    "gzip6": ("gzip -6 of a plain dump in a file", Pipe("gzip -6 <../plain/dump.sql >dump.sql.gz", "dump.sql.gz")),
    PG_RESTORE: ("restore: pg_restore -j2 of a local file", Stock(
        "pg_dump -Fc >db.dump", f"pg_restore -j2 -d {RESTORED} db.dump")),
    "gunzip": ("restore: gunzip of a local file, psql", Stock(
        "pg_dump | gzip -1 >db.sql.gz", "gunzip -c db.sql.gz | psql -Xq -v ON_ERROR_STOP=1 >/dev/null")),
    "restore": ("restore: respaldo, from S3, age, zstd", Restored("whole")),
    "restored": ("restore: the same, large tables in streams", Restored(
        "streams", ', streams = 2, streams_above = "64MiB"')),
    "gzipped": ("respaldo: gzip of that file, digests, one folder", Codec(["local"], "gzip")),
}


def summary(rounds):
    """Medians of each case's rounds; the ratio is taken within a round."""
    result = {}
    for name in rounds[0]:
        middle = {key: statistics.median(r[name][key] for r in rounds) for key in ("wall", "cpu", "stored")}
        peak = max(r[name]["peak"] for r in rounds)
        ratio = {f"{key}_ratio": statistics.median(r[name][key] / r[FLOOR][key] for r in rounds)
                 for key in ("wall", "cpu")}
        spread = [min(r[name]["wall"] / r[FLOOR]["wall"] for r in rounds),
                  max(r[name]["wall"] / r[FLOOR]["wall"] for r in rounds)]
        result[name] = middle | ratio | {"wall_ratio_range": spread, "peak": peak}
    return result


def table(size, result):
    print(f"\n{size['bytes'] / 1e9:.2f} GB database, {size['rounds']} rounds, medians; wall and CPU as ratios to "
          "the floor; one copy's size; highest peak\n")
    print(f"{'':<50} {'wall':>6} {'(range)':>13} {'CPU':>6} {'seconds':>8} {'CPU s':>7} {'stored MB':>10} {'peak MiB':>9}")
    for name, r in result.items():
        low, high = r["wall_ratio_range"]
        print(f"{CASES[name][0]:<50} {r['wall_ratio']:>6.2f} {f'({low:.2f}-{high:.2f})':>13} {r['cpu_ratio']:>6.2f} "
              f"{r['wall']:>8.2f} {r['cpu']:>7.2f} {r['stored'] / 1e6:>10.1f} {r['peak'] / MIB:>9.1f}")


def verdicts(result):
    """The targets of the project, said but not enforced: a noisy machine is not a broken one."""
    said = []
    for name, pipes in (("s3", (SHELL_PIPE, SHELL_S3)), ("local", (SHELL_PIPE,)), ("encrypt", (SHELL_AGE,))):
        if name in result:
            ratio, peak = result[name]["wall_ratio"], result[name]["peak"] / MIB
            said.append((f"{name}: at most 1.25 times the floor", ratio <= 1.25, f"{ratio:.2f}"))
            for pipe in pipes:
                if pipe in result:
                    shell = result[pipe]["wall_ratio"]
                    said.append((f"{name}: not slower than {CASES[pipe][0]}", ratio <= shell, f"{ratio:.2f} to {shell:.2f}"))
            said.append((f"{name}: peak memory under 64 MiB", peak < 64, f"{peak:.1f} MiB"))
    if {"gzip", "seed001"} <= result.keys():
        ratio, seed = result["gzip"]["wall_ratio"], result["seed001"]["wall_ratio"]
        said.append(("gzip: not slower than pg_dump | gzip", ratio <= seed, f"{ratio:.2f} to {seed:.2f}"))
    for name in ("restore", "restored"):
        if {name, PG_RESTORE} <= result.keys():
            ratio = result[name]["wall"] / result[PG_RESTORE]["wall"]
            said.append((f"{name}: at most 1.1 times pg_restore -j2", ratio <= 1.1, f"{ratio:.2f}"))
    if "streams" in result:
        ratio, peak = result["streams"]["wall_ratio"], result["streams"]["peak"] / MIB
        said.append(("streams: below the single-stream floor", ratio < 1, f"{ratio:.2f}"))
        said.append(("streams: peak memory under 64 MiB", peak < 64, f"{peak:.1f} MiB"))
    if {"gzip6", "gzipped"} <= result.keys():
        times = result["gzip6"]["wall"] / result["gzipped"]["wall"]
        said.append(("gzip: at least 4 times as fast as gzip -6", times >= 4, f"{times:.1f} times"))
    if said:
        print()
    for what, held, value in said:
        print(f"  {'met   ' if held else 'MISSED'} {what}: {value}")


def bench(home, options):
    postgres, s3, results = Postgres(home / "postgres"), None, []
    try:
        postgres.wait()
        if any(isinstance(CASES[name][1], Respaldo) or name == SHELL_S3 for name in options.only):
            s3 = S3(home / "s3")
        for scale in options.sizes:
            print(f"filling a database of scale {scale:g} ...", file=sys.stderr, flush=True)
            size = {"scale": scale, "bytes": postgres.fill(scale), "rounds": options.rounds}
            (home / "plain").mkdir()
            if {"gzip6", "gzipped"} & set(options.only):
                with open(home / "plain" / "dump.sql", "wb") as plain:
                    subprocess.run([PG_BIN / "pg_dump", "bench"], stdout=plain, env=postgres.env(), check=True)
            (home / "restore").mkdir()
            for name in options.only:
                if hasattr(CASES[name][1], "prepare"):
                    CASES[name][1].prepare(home / "restore", postgres, s3)
            rounds = []
            for number in range(options.rounds):
                took = {}
                for name in options.only:
                    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=home))
                    try:
                        took[name] = CASES[name][1].run(folder, postgres, s3)
                    finally:
                        shutil.rmtree(folder)
                    print(f"round {number + 1}/{options.rounds} {name:<8} {took[name]['wall']:7.2f} s",
                          file=sys.stderr, flush=True)
                rounds.append(took)
            postgres.empty()
            shutil.rmtree(home / "plain")
            shutil.rmtree(home / "restore")
            result = summary(rounds)
            table(size, result)
            verdicts(result)
            results.append(size | {"cases": result, "raw": rounds})
    finally:
        if s3:
            s3.stop()
        postgres.stop()
    return results


def main():
    scale = float(os.environ.get("BENCH_SCALE", "1"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="1", help="comma-separated; 1 is a 1.1 GB database (times BENCH_SCALE)")
    parser.add_argument("--only", default=",".join(CASES), help=f"comma-separated, of {', '.join(CASES)}")
    options = parser.parse_args()
    options.sizes = [float(s) * scale for s in options.sizes.split(",")]
    wanted = set(options.only.split(",")) | {FLOOR}
    if unknown := wanted - CASES.keys():
        parser.error(f"no case called {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    if options.rounds < 1 or min(options.sizes) <= 0:
        parser.error("rounds and sizes must be above 0")
    options.only = [name for name in CASES if name in wanted]
    needed = [PG_BIN / "initdb", PG_BIN / "pgbench", pathlib.Path("/usr/bin/zstd")]
    if SHELL_AGE in options.only:
        needed.append(pathlib.Path("/usr/bin/age"))
    if any(isinstance(CASES[name][1], Respaldo) for name in options.only):
        needed += [RESPALDO, S3_SERVER]
    for program in needed:
        if not program.exists():
            sys.exit(f"bench: {program} is missing; `make bench` installs and builds what this needs")

    # SIGTERM unwinds like Ctrl-C, so that the servers and the folder go with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # On a real disk and open to the database's own user: /tmp may be memory, a home folder closed.
    home = pathlib.Path(tempfile.mkdtemp(prefix="respaldo-bench-", dir=os.environ.get("BENCH_DIR", "/var/tmp")))
    try:
        home.chmod(0o755)
        results = bench(home, options)
    except Failed as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    about = {"pg_dump": run([PG_BIN / "pg_dump", "--version"]).strip(), "cpus": os.cpu_count(),
             "taken_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    out = REPO / "bench" / "results.json"
    out.write_text(json.dumps(about | {"sizes": results}, indent=2) + "\n")
    print(f"\nall rounds: {out.relative_to(REPO)}", file=sys.stderr)


if __name__ == "__main__":
    main()
