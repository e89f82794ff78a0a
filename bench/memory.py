"""Whether `[runtime] memory` holds, and what it costs: `marquee run` catches up with a real Kafka whose
events all stay in the state (`within = "7d"`), once for each limit, into a new store each time.

Prints the state in memory and on disk, the peak of the process (VmHWM) and the rate from the first
counted events on. Needs a broker (`cargo xtask services up kafka`); only the standard library:

    python3 bench/memory.py target/release/marquee 127.0.0.1:19092 REQUESTS MEMORY:FETCH_MEMORY ...

with memories as the configuration takes them (`384MiB:64MiB`).
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

REFERENCE = os.path.join(os.path.dirname(__file__), "../examples/reference.toml")


def config(folder, brokers, topic, number, memory, fetch_memory):
    text = open(REFERENCE).read()
    text = re.sub(r'within = "\w+"', 'within = "7d"', text)
    for kind in ("impressions", "plays"):
        text = text.replace(f"[{kind}]", f'[{kind}]\ntopic = "{topic}-{kind}"')
    text += f"""
[log]
kind = "kafka"
brokers = "{brokers}"
group = "{topic}-{number}"
fetch_memory = "{fetch_memory}"
[store]
path = "{folder}/store-{number}"
[runtime]
memory = "{memory}"
[http]
listen = "127.0.0.1:0"
"""
    path = f"{folder}/{number}.toml"
    open(path, "w").write(text)
    return path


def peak_mib(process):
    status = open(f"/proc/{process.pid}/status").read()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def run(binary, path, events):
    process = subprocess.Popen(
        [binary, "run", "-c", path], stdout=subprocess.PIPE, stderr=open(path + ".log", "w")
    )
    try:
        return caught_up(process, events)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def caught_up(process, events):
    address = process.stdout.readline().decode().removeprefix("listening on ").strip()
    first = None
    while True:
        status = json.load(urllib.request.urlopen(address + "/v1/status"))
        now, read = time.monotonic(), status["totals"]["events"]
        if read and not first:
            first = (now, read)
        if status["lag"] == 0 and read >= events:
            break
        time.sleep(0.1)
    state, on_disk = (
        sum(lane[name] for lane in status["lanes"]) >> 20
        for name in ("state_bytes", "state_disk_bytes")
    )
    return state, on_disk, peak_mib(process), (read - first[1]) / (now - first[0]) / 1e6


def main():
    binary, brokers, requests = sys.argv[1:4]
    limits = [limit.split(":") for limit in sys.argv[4:]]
    topic = f"memory-{time.time():.0f}"
    with tempfile.TemporaryDirectory() as folder:
        first = config(folder, brokers, topic, "generate", *limits[0])
        generate = [binary, "generate", "--requests", requests, "--span", "24h"]
        generate += ["--out", "kafka", "-c", first]
        said = subprocess.run(generate, check=True, stderr=subprocess.PIPE, text=True).stderr
        events = sum(int(number) for number in re.findall(r"(\d+) (?:impressions|plays)", said))
        print(said.strip(), file=sys.stderr)
        for number, (memory, fetch_memory) in enumerate(limits):
            path = config(folder, brokers, topic, number, memory, fetch_memory)
            in_memory, on_disk, peak, rate = run(binary, path, events)
            print(
                f"memory {memory}, fetch_memory {fetch_memory}: state {in_memory} MiB in memory, {on_disk} MiB on"
                f" disk; peak {peak:.0f} MiB; {rate:.2f} M events/s of {events / 1e6:.1f} M",
                flush=True,
            )


main()
