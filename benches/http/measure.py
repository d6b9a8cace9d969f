#!/usr/bin/env python3
"""Measures the servers of `http-bench` and writes the tables; `run.sh` starts the stores and calls this.

Each group of servers that are compared serves one after another within seconds; a round asks all
groups, and both orders are shuffled in each round, so that other load and the order affect all alike.
A ratio is taken within a round. Tables show medians over the rounds, with the lowest and the highest.
"""

import json
import os
import platform
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PICTURE = ROOT / "docs/overhead.svg"
FIGURES = TARGET / "http-bench.json"

sys.path.insert(0, str(HERE.parent))
from page import put

ROUNDS = int(os.environ.get("ROUNDS", 5))
DURATION = int(os.environ.get("DURATION", 1))
SESSIONS = int(os.environ.get("SESSIONS", 1000))
ONLY = os.environ.get("ONLY", "")
CONNECTIONS = 32

# The applications of a row, ours first; the others are compared with it.
ROWS = {
    "actix-web, signed cookie": ["actix-ours-signed", "actix-theirs-signed"],
    "actix-web, private cookie": ["actix-ours-private", "actix-theirs-private"],
    "actix-web, Redis": ["actix-ours-redis", "actix-theirs-redis"],
    "axum, memory": ["axum-ours-memory", "axum-theirs-memory"],
    "axum, Redis": ["axum-ours-redis", "axum-ours-redis-on-demand", "axum-theirs-redis", "axum-plain-redis"],
    "axum, PostgreSQL": ["axum-ours-postgres", "axum-theirs-postgres", "axum-plain-postgres"],
    "axum, MariaDB": ["axum-ours-mysql", "axum-theirs-mysql", "axum-plain-mysql"],
    "axum, SQLite": ["axum-ours-sqlite", "axum-theirs-sqlite", "axum-plain-sqlite"],
}
BARE = {"bare": ["actix-bare", "axum-bare"]}
PATHS = {"untouched": "/untouched", "read": "/read-three", "write": "/write-three"}
# Scenario: the rows and requests that it measures, the threads of the server, and how many sessions.
MANY, ONE, TWO = "many sessions", "one session", "two threads"
SCENARIOS = {
    MANY: (list(ROWS) + list(BARE), ["untouched", "read", "write"], 1, SESSIONS),
    ONE: (list(ROWS)[2:], ["read", "write"], 1, 1),
    TWO: (["actix-web, signed cookie", "actix-web, Redis", "axum, memory", "axum, Redis"],
          ["read", "write"], 2, SESSIONS),
}
NO_STORE = ("signed", "private", "bare", "memory", "sqlite")


def store_of(application):
    for name in ("redis", "postgres", "mysql", "sqlite", "memory"):
        if name in application:
            return name
    return "cookie"


def name_of(application):
    framework, whose, *_ = application.split("-")
    theirs = "actix-session" if framework == "actix" else "tower-sessions"
    name = {"ours": "session-manager", "theirs": theirs, "plain": "plain statements", "bare": "no session"}[whose]
    return name + (", on demand" if application.endswith("on-demand") else "")


def fail(why):
    sys.exit(f"FAILED: {why}")


# The servers


class Server:
    def __init__(self, application, threads, port, work):
        self.application, self.threads, self.port = application, threads, port
        self.log = work / f"{application}-{threads}.log"
        pinned = ["taskset", "-c", "0"] if threads == 1 else []
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*pinned, TARGET / "release/http-bench", application, str(port), str(threads)],
                stdout=log, stderr=log)
        self.pid = self.process.pid
        self.cookies = {}

    def until_ready(self):
        for _ in range(200):
            try:
                with Client(self.port) as client:
                    client.get("/untouched")
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        fail(f"{self.application} did not start: {self.log.read_text()}")

    def begin(self, work, sessions):
        """Starts sessions to read and others to write, and checks that they do what they are asked."""
        for path in PATHS:
            if path == "untouched":
                continue
            file = work / f"{self.application}-{self.threads}-{path}"
            with Client(self.port) as client:
                if self.application.endswith("-bare"):
                    cookies = ["bare=application"]
                else:
                    cookies = [client.get("/begin")[1] for _ in range(sessions)]
                self.check(client, path, cookies[0])
            file.write_text("\n".join(cookies) + "\n")
            file.with_suffix(".one").write_text(cookies[0] + "\n")
            self.cookies[path] = cookies
        self.cookies["untouched"] = self.cookies["read"]

    def check(self, client, path, cookie):
        if self.application.endswith("-bare"):
            return
        if not cookie:
            fail(f"{self.application} began no session")
        _, sent = client.get(PATHS[path], cookie)
        if path == "write":
            client.get("/written", sent or cookie)
        elif sent:
            fail(f"{self.application} set a cookie for {path}")

    def file(self, work, path, sessions):
        path = "read" if path == "untouched" else path
        file = work / f"{self.application}-{self.threads}-{path}"
        return file.with_suffix(".one") if sessions == 1 else file


class Client:
    """Sends one request after another on one connection."""

    def __init__(self, port):
        self.port = port

    def __enter__(self):
        self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    def __exit__(self, *_):
        self.socket.close()

    def get(self, path, cookie=None):
        cookie = f"cookie: {cookie}\r\n" if cookie else ""
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{cookie}\r\n".encode())
        answer = b""
        # Every handler answers with this text.
        while not answer.endswith(b"\r\n\r\ndone"):
            part = self.socket.recv(65536)
            answer += part
            if not part or (b"\r\n\r\n" in answer and not answer.startswith(b"HTTP/1.1 200")):
                fail(f"GET {path}: {answer.decode(errors='replace')[:200]}")
        head = answer.decode()
        found = re.search(r"^set-cookie: ([^;\r]*)", head, re.IGNORECASE | re.MULTILINE)
        return head, found and found[1]


# Processor time


def read_of_tasks(pid, name):
    """Returns the text of a file of each thread; of none if the process ended just now, as workers do."""
    texts = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            texts.append((task / name).read_text())
    except OSError:
        pass
    return texts


def processor(pids):
    """Returns the microseconds that processes have run on a processor."""
    return sum(int(text.split()[0]) for pid in pids for text in read_of_tasks(pid, "schedstat")) / 1000


def children(pid):
    return [pid] + [it for text in read_of_tasks(pid, "children") for child in text.split() for it in children(child)]


def store_pids(application):
    pid = os.environ.get(f"BENCH_{store_of(application).upper()}_PID")
    return children(int(pid)) if pid else []


def busy():
    """Returns the microseconds that all processors have been busy, and those that they have been."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    tick = 1e6 / os.sysconf("SC_CLK_TCK")
    return (sum(fields) - fields[3] - fields[4]) * tick, sum(fields) * tick


# What Redis counts


def redis(*command):
    with socket.create_connection(("127.0.0.1", int(os.environ["BENCH_REDIS"].rsplit(":", 1)[1]))) as connection:
        connection.sendall("".join([f"*{len(command)}\r\n", *(f"${len(it)}\r\n{it}\r\n" for it in command)]).encode())
        reader = connection.makefile("rb")
        head = reader.readline()
        if head.startswith(b"$"):
            return reader.read(int(head[1:])).decode()
        return head.decode()


def counted():
    commands = {}
    for name, calls in re.findall(r"cmdstat_([\w|]+):calls=(\d+)", redis("INFO", "commandstats")):
        commands[name.upper()] = int(calls)
    reads = int(re.search(r"total_reads_processed:(\d+)", redis("INFO", "stats"))[1])
    return commands, reads


def at_redis(server, path, requests=200):
    """Returns the round trips of a request and its commands, one request at a time."""
    if "script" not in server.cookies:
        with Client(server.port) as client:  # The first write may bring a script.
            server.cookies["script"] = client.get(PATHS["write"], server.cookies["write"][0])
    counted()
    before, idle = counted(), counted()
    own = idle[1] - before[1]
    with Client(server.port) as client:
        for number in range(requests):
            client.get(PATHS[path], server.cookies[path][number % len(server.cookies[path])])
    after = counted()
    commands = {name: (calls - idle[0].get(name, 0)) / requests for name, calls in after[0].items() if name != "INFO"}
    commands = {name: calls for name, calls in commands.items() if calls >= 0.005}
    return (after[1] - idle[1] - own) / requests, commands


def memory_of_redis():
    return int(re.search(r"used_memory:(\d+)", redis("INFO", "memory"))[1])


def resident(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def bytes_in_process(server, sessions=20_000):
    """Returns the bytes that a session takes in the server's own memory."""
    before = resident(server.pid)
    with Client(server.port) as client:
        for _ in range(sessions):
            client.get("/begin")
    return (resident(server.pid) - before) / sessions


# Measuring


def measure(server, path, sessions, work):
    pids, stores = [server.pid], store_pids(server.application)
    before, stores_before, (busy_before, whole_before) = processor(pids), processor(stores), busy()
    pinned = ["taskset", "-c", "1"] if server.threads == 1 else []
    wrk = subprocess.Popen(
        [*pinned, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{DURATION}s", "-s", HERE / "sessions.lua",
         f"http://127.0.0.1:{server.port}", "--", server.file(work, path, sessions), PATHS[path]],
        stdout=subprocess.PIPE, text=True)
    output = wrk.stdout.read()
    usage = os.wait4(wrk.pid, 0)[2]
    spent, store_spent = processor(pids) - before, processor(stores) - stores_before
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", output)
    if not found or int(found[5]) or not int(found[1]):
        fail(f"wrk {server.application} {path}: {output}\n{server.log.read_text()[-2000:]}")
    requests, microseconds, p50, p99 = (int(it) for it in found.groups()[:4])
    busy_after, whole_after = busy()
    ours = spent + store_spent + (usage.ru_utime + usage.ru_stime) * 1e6
    return {
        "rate": requests / microseconds * 1e6, "p50": p50 / 1000, "p99": p99 / 1000,
        "server": spent / requests, "store": store_spent / requests,
        "foreign": max(0, busy_after - busy_before - ours) / (whole_after - whole_before),
    }


def groups():
    for scenario, (rows, paths, threads, sessions) in SCENARIOS.items():
        for row in rows:
            for path in paths:
                if not ONLY or re.search(ONLY, f"{scenario}; {row}; {path}"):
                    applications = ROWS.get(row) or BARE[row]
                    if scenario != MANY:
                        applications = [it for it in applications if "plain" not in it and "demand" not in it]
                    yield scenario, applications, path, threads, sessions


def run(work):
    wanted = list(groups())
    needed = sorted({(it, threads) for _, all, _, threads, _ in wanted for it in all})
    servers = {}
    try:
        ports = iter(os.environ["BENCH_PORTS"].split())
        for application, threads in needed:
            servers[application, threads] = Server(application, threads, int(next(ports)), work)
        bytes_each, trips = {}, {}
        for server in servers.values():
            server.until_ready()
            is_redis = store_of(server.application) == "redis"
            before = memory_of_redis() if is_redis else 0
            server.begin(work, SESSIONS)
            if is_redis and server.threads == 1:
                bytes_each[server.application] = (memory_of_redis() - before) / (2 * SESSIONS)
                for path in PATHS:
                    trips.setdefault(server.application, {})[path] = at_redis(server, path)
            elif store_of(server.application) == "memory" and server.threads == 1:
                bytes_each[server.application] = bytes_in_process(server)
        figures = []
        for number in range(ROUNDS):
            order = random.Random(number)
            order.shuffle(wanted)
            for scenario, applications, path, threads, sessions in wanted:
                for application in order.sample(applications, len(applications)):
                    figure = measure(servers[application, threads], path, sessions, work)
                    figures.append({"round": number, "scenario": scenario, "application": application,
                                    "path": path, **figure})
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
        return {"figures": figures, "trips": trips, "bytes": bytes_each}
    finally:
        for server in servers.values():
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()


# The tables


def digits(number):
    """Writes a number with two significant digits."""
    if number == 0:
        return "0"
    rounded = float(f"{number:.1e}")
    if abs(rounded) >= 10:
        return f"{rounded:,.0f}"
    return f"{rounded:.2f}" if abs(rounded) < 1 else f"{rounded:.1f}"


def median(numbers):
    numbers = sorted(numbers)
    middle = len(numbers) // 2
    return numbers[middle] if len(numbers) % 2 else (numbers[middle - 1] + numbers[middle]) / 2


class Results:
    def __init__(self, result):
        self.result = result
        self.of = {}
        for figure in result["figures"]:
            key = figure["scenario"], figure["application"], figure["path"]
            self.of.setdefault(key, {})[figure["round"]] = figure

    def median(self, scenario, application, path, what):
        figures = self.of.get((scenario, application, path))
        return figures and median([figure[what] for figure in figures.values()])

    def ratio(self, scenario, ours, theirs, path, what="rate"):
        """Returns the median, the lowest and the highest of ours / theirs."""
        ours, theirs = self.of.get((scenario, ours, path)), self.of.get((scenario, theirs, path))
        if not ours or not theirs:
            return None
        ratios = sorted(ours[number][what] / theirs[number][what] for number in ours if number in theirs)
        return median(ratios), ratios[0], ratios[-1]


def table(head, rows):
    lines = ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows if any(cell not in ("", "–") for cell in row[1:])]
    return lines


def spread(ratio):
    if not ratio:
        return "–"
    text = f"{digits(ratio[0])} ({digits(ratio[1])} to {digits(ratio[2])})"
    return f"**{text}**" if float(digits(ratio[0])) < 1 else text


COLUMNS = [(MANY, "untouched"), (MANY, "read"), (MANY, "write"), (ONE, "read"), (ONE, "write"),
           (TWO, "read"), (TWO, "write")]


def pairs():
    for row, applications in ROWS.items():
        ours = [it for it in applications if "-ours-" in it]
        theirs = [it for it in applications if "-theirs-" in it]
        for one in ours:
            demand = ", loaded on demand" if one.endswith("demand") else ""
            yield row + demand, one, theirs[0]


def tables(result):
    results = Results(result)
    lines = []
    behind = []
    for row, ours, theirs in pairs():
        for scenario, path in COLUMNS:
            ratio = results.ratio(scenario, ours, theirs, path)
            if ratio and float(digits(ratio[0])) < 1:
                where = "" if scenario == MANY else f", {scenario}"
                noise = "; within the spread" if ratio[2] >= 1 else ""
                cpu = results.ratio(scenario, ours, theirs, path, "server")
                behind.append((ratio[0], f"- {row}, {path}{where}: {digits(ratio[0])} of "
                               f"{name_of(theirs)}'s requests per second, {digits(cpu[0])} of its processor time{noise}."))
    behind = [line for _, line in sorted(behind)] or ["- Over HTTP: nowhere in the last run."]

    lines += ["", "### Requests per second, for each of the peer's", "",
              "Median of the rounds (lowest to highest). Bold where the peer is ahead."]
    head = ["", *(path if scenario == MANY else f"{path}, {scenario}" for scenario, path in COLUMNS)]
    lines += table(head, [[row, *(spread(results.ratio(scenario, ours, theirs, path)) for scenario, path in COLUMNS)]
                          for row, ours, theirs in pairs()])

    lines += ["", "### Processor time of the server, for each microsecond of the peer's", "",
              "Of the whole request, the framework's part included. Less is better."]
    def cell(scenario, ours, theirs, path):
        ratio = results.ratio(scenario, ours, theirs, path, "server")
        return f"{digits(ratio[0])} ({digits(ratio[1])} to {digits(ratio[2])})" if ratio else "–"
    lines += table(head, [[row, *(cell(scenario, ours, theirs, path) for scenario, path in COLUMNS)]
                          for row, ours, theirs in pairs()])

    def each(text):
        for row, applications in {**ROWS, **BARE}.items():
            for application in applications:
                framework = application.split("-")[0].replace("actix", "actix-web")
                where = row if row != "bare" else framework
                yield [f"{where}: {name_of(application)}", *(text(application, path) for path in PATHS)]

    def rate(application, path):
        rate = results.median(MANY, application, path, "rate")
        if not rate:
            return "–"
        p50, p99 = (results.median(MANY, application, path, it) for it in ("p50", "p99"))
        return f"{digits(rate)}; {digits(p50)}, {digits(p99)}"
    lines += ["", "### Requests per second; milliseconds of half of them, and of 99 in 100", "",
              f"With {CONNECTIONS} requests always under way, so the server is never idle and a request waits in line."]
    lines += table(["", *PATHS], each(rate))

    def time_of(application, path):
        server = results.median(MANY, application, path, "server")
        store = results.median(MANY, application, path, "store")
        if not server:
            return "–"
        return digits(server) + (f" + {digits(store)}" if store else "")
    lines += ["", "### Microseconds of processor per request: of the server, and of the store's"]
    lines += table(["", *PATHS], each(time_of))

    def trips(application, path):
        found = result["trips"].get(application, {}).get(path)
        if not found:
            return "–"
        commands = ", ".join(f"`{name}`" + (f" {digits(calls)}" if abs(calls - 1) > 0.01 else "")
                             for name, calls in found[1].items())
        return f"{digits(round(found[0], 2))}: {commands or 'nothing'}"
    lines += ["", "### Round trips to Redis per request, and commands", "",
              "Counted by Redis (`INFO stats`, `INFO commandstats`) while requests come one at a time. "
              "The commands of a transaction and those that a script calls take no round trip."]
    lines += table(["", *PATHS], each(trips))
    sizes = [[f"{row}: {name_of(application)}", digits(result["bytes"][application])]
             for row, applications in ROWS.items() for application in applications
             if application in result["bytes"] and not application.endswith("demand")]
    if sizes:
        lines += ["", "### Bytes of memory per session of three keys", "",
                  "Of Redis (`used_memory`), and of the server for the memory stores (resident, by 20,000 sessions)."]
        lines += table(["", "bytes"], sizes)
    return behind, lines


def first_line(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return ""


def versions():
    lock = (HERE / "Cargo.lock").read_text()
    found = {}
    for name, version in re.findall(r'name = "([\w-]+)"\nversion = "([^"]+)"', lock):
        found.setdefault(name, []).append(version)
    names = ["actix-web", "axum", "actix-session", "tower-sessions", "tower-sessions-redis-store",
             "tower-sessions-sqlx-store", "redis", "fred", "sqlx", "libsqlite3-sys"]
    return ", ".join(f"{name} {' and '.join(found[name])}" for name in names)


def head(result):
    info = Path("/proc/cpuinfo").read_text()
    cpu = re.search(r"model name\s*: (.*)", info)
    foreign = median([figure["foreign"] for figure in result["figures"]])
    lines = [""]
    if foreign > 0.05:
        lines += [f"**Preliminary: while this ran, other processes took {foreign:.0%} of the machine.**", ""]
    stores = [re.search(r"v=([\d.]+)", first_line("redis-server", "--version")),
              re.search(r"[\d.]+", os.environ.get("BENCH_POSTGRES_VERSION", "")),
              re.search(r"([\d.]+)-MariaDB", first_line("mariadbd", "--version"))]
    names = ["Redis", "PostgreSQL", "MariaDB"]
    stores = [f"{name} {found[found.lastindex or 0]}" for name, found in zip(names, stores) if found]
    lines.append(
        f"{time.strftime('%Y-%m-%d')}, {cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, "
        f"{platform.system()} {platform.release()}, {' '.join(first_line('rustc', '--version').split()[:2])}; "
        f"{', '.join(stores)}; {versions()}. {ROUNDS} rounds of {DURATION} s, {CONNECTIONS} connections, "
        f"{SESSIONS:,} sessions.")
    return lines


def write(result):
    FIGURES.write_text(json.dumps(result))
    behind, lines = tables(result)
    behind, text = "\n".join(behind), "\n".join([*head(result), *lines])
    if ONLY or os.environ.get("PREVIEW"):
        print(behind, text, sep="\n")
        return
    put("behind", behind)
    put("http", text)
    subprocess.run([sys.executable, HERE / "picture.py", FIGURES, PICTURE], check=True)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "tables":
        write(json.loads(FIGURES.read_text()))
    else:
        write(run(Path(os.environ["BENCH_WORK"])))
