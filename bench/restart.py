"""How long a restart takes: `marquee run` on the embedded log is fed events that all stay in the state,
killed with -9 once a snapshot was taken, and started again; then again without snapshots.

The clock runs from the start of the process until an event that is sent as soon as it listens is
visible through the API. Only the standard library:

    python3 bench/restart.py target/release/marquee [requests] [runs]
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

BATCH = 3_500_000


def ask(address, path, body=None):
    request = urllib.request.Request(address + path, data=body)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def start(binary, config):
    process = subprocess.Popen(
        [binary, "run", "-c", config], stdout=subprocess.PIPE, stderr=open(config + ".log", "a")
    )
    line = process.stdout.readline().decode()
    return process, line.removeprefix("listening on ").strip()


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def feed(address, folder):
    events = 0
    files = [open(f"{folder}/{kind}.ndjson", "rb") for kind in ("impressions", "plays")]
    sizes = [os.fstat(file.fileno()).st_size for file in files]
    while True:
        # Both topics at the same pace of event time.
        share = [file.tell() / size for file, size in zip(files, sizes)]
        which = share.index(min(share))
        body = files[which].read(BATCH) + files[which].readline()
        if not body:
            return events
        path = "/v1/" + ("impressions", "plays")[which]
        events += ask(address, path, body)["accepted"]


def until(what, is_so):
    began = time.monotonic()
    while not is_so():
        if time.monotonic() - began > 600:
            sys.exit(f"gave up waiting until {what}")
        time.sleep(0.005)
    return time.monotonic() - began


def gauge(address, name):
    text = urllib.request.urlopen(address + "/metrics").read().decode()
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(name + "{")]
    return [float(value) for _, value in rows]


def restarted(binary, config, number, newest_ms):
    """Seconds from the start to listening, and to the first new result."""
    began = time.monotonic()
    process, address = start(binary, config)
    listening = time.monotonic() - began
    video = f"new-{number}-{began}"
    event = {"request_id": video, "video_id": video, "ts": newest_ms, "device": "tv"}
    ask(address, "/v1/impressions", json.dumps(event).encode())

    def is_visible():
        try:
            return ask(address, f"/v1/trends?video={video}")["cells"]
        except urllib.error.HTTPError:
            return False

    until("the new event is visible", is_visible)
    return process, address, listening, time.monotonic() - began


def main():
    binary = sys.argv[1]
    requests = sys.argv[2] if len(sys.argv) > 2 else "600000"
    runs = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    folder = tempfile.mkdtemp(prefix="marquee-restart-")
    try:
        measure(binary, requests, runs, folder)
    finally:
        shutil.rmtree(folder)


def measure(binary, requests, runs, folder):
    # An hour of events: with `within` of an hour none of their epochs closes.
    subprocess.run(
        [binary, "generate", "--requests", requests, "--span", "55m", "--out", folder, "--seed", "7"],
        check=True,
    )
    newest_ms = json.loads(open(f"{folder}/impressions.ndjson").readline())["ts"]
    reference = open(os.path.join(os.path.dirname(__file__), "../examples/reference.toml")).read()

    def config(name, interval):
        path = f"{folder}/{name}.toml"
        with open(path, "w") as file:
            file.write(
                f'{reference}\n[log]\npath = "{folder}/log"\n[store]\npath = "{folder}/store"\n'
                f'[http]\nlisten = "127.0.0.1:0"\n[snapshots]\ninterval = "{interval}"\n'
            )
        return path

    often, seldom, never = config("often", "5s"), config("seldom", "1d"), config("never", "0s")
    process, address = start(binary, often)
    began = time.monotonic()
    events = feed(address, folder)
    until("all is counted", lambda: ask(address, "/v1/status")["lag"] == 0)
    print(f"{events} events fed and counted in {time.monotonic() - began:.1f} s")
    time.sleep(6)
    wait = gauge(address, "marquee_snapshot_seconds")
    size, state = (sum(gauge(address, "marquee_" + n)) for n in ("snapshot_bytes", "state_bytes"))
    print(f"snapshots of {len(wait)} lanes: {size / 1e6:.1f} MB, taking {max(wait):.3f} s at most a lane; "
          f"state {state / 1e6:.1f} MB in memory")
    kill(process)
    # Without one comes last: what a rebuild has added to the store no older snapshot knows.
    for name, path in [("with a snapshot", seldom), ("without", never)]:
        for number in range(runs):
            process, address, listening, visible = restarted(binary, path, number, newest_ms)
            replayed = sum(gauge(address, "marquee_replayed_records_total"))
            kill(process)
            print(f"{name}: listening after {listening:.2f} s, first new result after {visible:.2f} s, "
                  f"{replayed:.0f} records read again")


main()
