"""Reads the tables of marquee's Cassandra store with the stock driver, and decodes the sets by code of
its own: the judge of what stands there shares no line with the program.

Reads one JSON object {"address", "port", "keyspace", "do", ...} from standard input and answers JSON.
"""

import csv
import json
import sys
import uuid
from datetime import datetime

from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import RetryPolicy, RoundRobinPolicy


class Patient(RetryPolicy):
    """Two cores for three nodes are slow: what was not answered in time is asked again."""

    def on_read_timeout(self, query, consistency, *counts, retry_num, **more):
        return (self.RETRY, consistency) if retry_num < 10 else (self.RETHROW, None)


def number(data, at):
    """An unsigned LEB128 number, and the place behind it."""
    value, shift = 0, 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def text(data, at):
    length, at = number(data, at)
    assert at + length <= len(data), "a text is cut"
    return data[at : at + length], at + length


def chunk(data):
    """The request ids of a chunk, version 1."""
    if not data:
        return
    assert data[0] == 1, "an unknown version"
    uuids, at = number(data, 1)
    for _ in range(uuids):
        yield str(uuid.UUID(bytes=bytes(data[at : at + 16])))
        at += 16
    while at < len(data):
        one, at = text(data, at)
        yield one.decode()


def cells_of(data):
    """Video and both chunks of each cell of a value of members."""
    at = 0
    while at < len(data):
        video, at = text(data, at)
        impressions, at = text(data, at)
        plays, at = text(data, at)
        yield video.decode(), impressions, plays


def milliseconds(time):
    """Of a time without a zone, which means UTC."""
    return round((time - datetime(1970, 1, 1)).total_seconds() * 1000)


def counts(session, ask):
    rows = session.execute("SELECT epoch_start, slice, video, impressions, plays FROM counts")
    sums = {}
    for row in rows:
        cell = sums.setdefault((row.video, milliseconds(row.epoch_start), row.slice), [0, 0])
        cell[0] += row.impressions or 0
        cell[1] += row.plays or 0
    return [[*cell, *both] for cell, both in sorted(sums.items())]


def members(session, ask):
    """All members, as CSV: side, video, start of the epoch, request id."""
    rows = session.execute("SELECT epoch_start, ids FROM members")
    with open(ask["to"], "w", newline="") as out:
        out = csv.writer(out, lineterminator="\n")
        out.writerow(["side", "video", "epoch_start_ms", "request_id"])
        for row in rows:
            start = milliseconds(row.epoch_start)
            for video, *chunks in cells_of(row.ids):
                for side, data in zip(("impressions", "plays"), chunks):
                    out.writerows([side, video, start, one] for one in chunk(data))
    return None


def write_number(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_text(data):
    return write_number(len(data)) + data


def change(session, ask):
    """Rewrites the first value of a lane that has impressions of a video: without one of them, or with
    one more. A member that is told again elsewhere would still be there, so all values are looked at."""
    rows = session.execute(
        "SELECT generation, epoch_ms, epoch_start, slice, bucket, lane, part, name, ids FROM members"
    )
    victim, epoch = None, None
    for row in rows:
        if row.lane != ask["lane"]:
            continue
        cells, touched = [], False
        for video, shown, played in cells_of(row.ids):
            ids = sorted(chunk(shown))
            if video == ask["video"] and ids and (epoch is None or row.epoch_start == epoch):
                if ask["adds"] and victim is None:
                    victim, epoch, touched = str(uuid.UUID(int=7)), row.epoch_start, True
                    ids = sorted([*ids, victim])
                elif not ask["adds"] and (victim is None or victim in ids):
                    victim, epoch, touched = victim or ids[0], row.epoch_start, True
                    ids.remove(victim)
                raw = [uuid.UUID(one).bytes for one in ids]
                shown = b"\x01" + write_number(len(raw)) + b"".join(raw) if raw else b""
            cells.append((video.encode(), shown, played))
        if touched:
            value = b"".join(write_text(part) for cell in cells for part in cell)
            session.execute(
                "UPDATE members SET ids = %s WHERE generation = %s AND epoch_ms = %s AND epoch_start = %s"
                " AND slice = %s AND bucket = %s AND lane = %s AND part = %s AND name = %s",
                (value, row.generation, row.epoch_ms, row.epoch_start, row.slice, row.bucket, row.lane,
                 row.part, row.name),
            )
    assert victim, "no such cell"
    return victim


def run(session, ask):
    return [list(row) for row in session.execute(ask["cql"]) or []]


def main():
    ask = json.load(sys.stdin)
    profile = ExecutionProfile(
        load_balancing_policy=RoundRobinPolicy(),
        retry_policy=Patient(),
        consistency_level=getattr(ConsistencyLevel, ask.get("consistency", "LOCAL_QUORUM")),
        request_timeout=120,
    )
    cluster = Cluster(
        [ask["address"]], port=ask["port"], execution_profiles={EXEC_PROFILE_DEFAULT: profile}
    )
    session = cluster.connect(ask.get("keyspace"))
    session.default_fetch_size = ask.get("fetch", 500)
    answer = {"counts": counts, "members": members, "run": run, "change": change}[ask["do"]](session, ask)
    json.dump(answer, sys.stdout, default=str)
    cluster.shutdown()


main()
