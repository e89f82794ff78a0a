"""How fast `marquee run` catches up with Kafka into Cassandra, and whose processors that takes; beside the
embedded store, in turn. The same topics each time, a new group, a new keyspace and a new folder.

Needs a broker and a node (`cargo xtask services up kafka cassandra`), events in two topics and the pid of
the node, whose CPU time is told; only the standard library:

    python3 bench/cassandra.py target/release/marquee IMPRESSIONS PLAYS EVENTS PID ROUNDS

where `marquee generate --requests 600000 --seed 5 --out kafka` has filled the topics with EVENTS events.
"""

import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

REFERENCE = os.path.join(os.path.dirname(__file__), "../examples/reference.toml")
HERTZ = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / HERTZ


def config(folder, name, topics, store, members):
    text = open(REFERENCE).read()
    for kind, topic in zip(("impressions", "plays"), topics):
        text = text.replace(f"[{kind}]", f'[{kind}]\ntopic = "{topic}"')
    keys = f'kind = "cassandra"\nkeyspace = "{name}"' if store == "cassandra" else ""
    text += f"""
[log]
kind = "kafka"
group = "{name}"
[store]
path = "{folder}/{name}"
members = {"true" if members else "false"}
{keys}
[http]
listen = "127.0.0.1:0"
"""
    path = f"{folder}/{name}.toml"
    open(path, "w").write(text)
    return path


def status(address):
    with urllib.request.urlopen(f"{address}/v1/status", timeout=10) as answer:
        return json.load(answer)


def run(binary, folder, name, topics, events, node, store, members):
    path = config(folder, name, topics, store, members)
    if store == "cassandra":
        subprocess.run([binary, "schema", "-c", path, "--apply"], check=True, stderr=subprocess.DEVNULL)
    log = open(f"{folder}/{name}.log", "w")
    program = subprocess.Popen([binary, "run", "-c", path], stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        address = program.stdout.readline().split()[-1]
        of_node, first = cpu_seconds(node), None
        while True:
            time.sleep(0.05)
            now = status(address)
            counted = now["totals"]["events"]
            if counted and first is None:
                first = (time.monotonic(), counted)
            if counted >= events and now["lag"] == 0 and now["ready"]:
                break
        rate = (counted - first[1]) / (time.monotonic() - first[0])
        own = cpu_seconds(program.pid) / counted * 1e6
        of_node = (cpu_seconds(node) - of_node) / counted * 1e6
        top = latencies(address) if store == "cassandra" else None
        return rate, own, of_node, top
    finally:
        program.send_signal(signal.SIGTERM)
        program.wait()


def latencies(address):
    """Milliseconds of 1,000 questions for the top 100 of an epoch, one after the other."""
    host = re.match(r"http://([^/]*)", address).group(1)
    client = http.client.HTTPConnection(host)

    def ask(path):
        client.request("GET", path)
        answer = client.getresponse()
        assert answer.status == 200, answer.status
        return json.loads(answer.read())["cells"]

    start = ask("/v1/trends?limit=1&sort=plays")[0]["epoch_start_ms"]
    of_epoch = f"/v1/trends?from={start}&to={start + 1}"
    videos = len(ask(f"{of_epoch}&limit=10000"))
    took = []
    for _ in range(1000):
        began = time.perf_counter()
        ask(f"{of_epoch}&limit=100&sort=plays")
        took.append((time.perf_counter() - began) * 1e3)
        time.sleep(0.005)
    took.sort()
    return videos, took[500], took[990]


def main():
    binary, impressions, plays, events, node, rounds = sys.argv[1:]
    kinds = [(store, members) for members in (True, False) for store in ("cassandra", "embedded")]
    found = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="marquee-bench-") as folder:
        for number in range(int(rounds)):
            for store, members in kinds:
                name = f"bench_{os.getpid()}_{number}_{store}_{'m' if members else 'c'}"
                result = run(
                    binary, folder, name, (impressions, plays), int(events), int(node), store, members
                )
                found[store, members].append(result)
    for (store, members), results in found.items():
        rate, own, of_node = (statistics.median(result[column] for result in results) for column in range(3))
        print(f"{store}, {'counts and members' if members else 'counts only'}: {rate / 1e6:.2f} M events/s, "
              f"{own:.2f} s of CPU per M events, the node {of_node:.2f} s")
        for videos, middle, p99 in (r[3] for r in results if r[3]):
            print(f"  top 100 of {videos} videos: median {middle:.1f} ms, p99 {p99:.1f} ms")
    for members in (True, False):
        pairs = zip(found["cassandra", members], found["embedded", members])
        ratios = sorted(one[1] / other[1] for one, other in pairs)
        words = "counts and members" if members else "counts only"
        print(f"CPU of marquee, cassandra : embedded, {words}: {statistics.median(ratios):.2f} "
              f"({ratios[0]:.2f}-{ratios[-1]:.2f})")


main()
