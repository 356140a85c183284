#!/usr/bin/env python3
"""What rows, batteries and sockets take on the disk and in the hub's memory.

Beside a running stack, whose tables it adds to:
    scripts/measure_sizes.py --url http://127.0.0.1:8000 --database "$DATABASE_URL" --pid "$(pidof datahub)"
docs/OPERATIONS.md has its figures.
"""

import argparse
import base64
import math
import os
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request

COLUMNS = (
    "test_time,time,cycle_number,step_index,file_number,state,method,voltage,current,temperature,"
    "internal_resistance,cycle_capacity,cycle_energy,cycle_time,aux_temperature"
)


def row(n):
    """A row of a cycler, of 15 columns."""
    state, sign = ("charging", 1) if n % 7200 < 3600 else ("discharging", -1)
    return (
        f"{n + 0.5},{1.7e9 + n + 0.5},{n // 7200},{n // 600 % 12},0,{state},constant_current,"
        f"{3.7 + 0.4 * math.sin(n / 3600)},{sign * 1.5},{25 + math.sin(n / 86400)},0.0125,"
        f"{n % 3600 / 2400 + 0.1},{n % 3600 / 650 + 0.1},{n % 7200 + 0.5},24.9"
    )


def post(url, battery, rows):
    body = "\n".join([COLUMNS, *rows, ""]).encode()
    request = urllib.request.Request(
        f"{url}/db/upload/{battery}", body, {"Content-Type": "text/csv"}
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.headers["Rovi-Rows-Rejected"] == "0", answer.headers


def ask(database, sql):
    command = ["psql", "--no-align", "--tuples-only", "--dbname", database, "--command", sql]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(answer.stdout.split()[-1])


def memory(pid):
    """The process's resident memory in bytes, once what was under way is done."""
    time.sleep(5)
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))


def peak_while(pid, work):
    """Runs `work`; returns its seconds and the most resident memory meanwhile, in bytes."""
    done, peak = threading.Event(), [0]

    def watch():
        while not done.wait(0.1):
            with open(f"/proc/{pid}/status", encoding="ascii") as lines:
                now = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
            peak[0] = max(peak[0], now)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.monotonic()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return time.monotonic() - begun, peak[0]


def read_away(url):
    with urllib.request.urlopen(url) as answer:
        while answer.read(1 << 20):
            pass


def exports(url, battery, pid):
    print(f"before exports the hub has {memory(pid) >> 20} MiB")
    questions = [f"export?format={form}" for form in ("csv", "ndjson", "json", "msgpack", "parquet", "h5")]
    for question in [*questions, "?max_points=1000&columns=voltage"]:
        seconds, peak = peak_while(pid, lambda q=question: read_away(
            f"{url}/db/{battery}/rows{q if q.startswith('?') else '/' + q}"))
        print(f"{question}: {seconds:.0f} s, the hub has {peak >> 20} MiB at most")


def open_socket(url, battery):
    host = urllib.parse.urlsplit(url)
    upload = socket.create_connection((host.hostname, host.port))
    key = base64.b64encode(os.urandom(16)).decode()
    upload.sendall(
        f"GET /db/upload/{battery} HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: rovi.v1\r\n\r\n".encode()
    )
    while b"hello" not in upload.recv(65536):
        pass
    return upload


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--database", required=True)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batteries", type=int, default=1000)
    parser.add_argument("--sockets", type=int, default=900)
    parser.add_argument("--exports-of", help="measures only exports, of this battery")
    given = parser.parse_args()
    url, database = given.url, given.database
    if given.exports_of:
        exports(url, given.exports_of, given.pid)
        return
    run = f"size-{os.getpid()}"

    post(url, run, [row(0)])
    before, disk = memory(given.pid), ask(database, "SELECT pg_database_size(current_database())")
    for n in range(given.batteries):
        post(url, f"{run}-{n}", [row(0)])
    disk = ask(database, "SELECT pg_database_size(current_database())") - disk
    taken = memory(given.pid) - before
    print(f"a battery with one row: {disk / given.batteries / 1024:.0f} KiB on the disk, "
          f"{taken / given.batteries / 1024:.1f} KiB of the hub's memory")

    before = memory(given.pid)
    sockets = [open_socket(url, f"{run}-{n % given.batteries}") for n in range(given.sockets)]
    taken = memory(given.pid) - before
    print(f"an idle socket: {taken / len(sockets) / 1024:.1f} KiB of the hub's memory")

    ask(database, "CHECKPOINT; SELECT 0")
    wal = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"
    before = ask(database, wal)
    for begin in range(1, given.rows, 10_000):
        post(url, run, [row(n) for n in range(begin, min(begin + 10_000, given.rows))])
    written = ask(database, wal) - before
    table = ask(database, f"""SELECT pg_table_size('battery."{run}"')""")
    index = ask(database, f"""SELECT pg_indexes_size('battery."{run}"')""")
    print(f"a row of 15 columns: {table / given.rows:.0f} bytes of table, "
          f"{index / given.rows:.0f} of index, {written / given.rows:.0f} of WAL")
    exports(url, run, given.pid)


if __name__ == "__main__":
    main()
