"""A stock Kafka client for tests. Reads a line of JSON, the request, from standard input, and writes
one answer.

{"do": "produce", "brokers", "config": {...}, "records": [{"topic", "partition"?, "key"?, "value"?,
   "value_base16"?, "headers"?, "timestamp"?}], "transaction": "commit" | "abort" | "open" | null}:
   where each record stands, in their order, as [partition, offset]. "open": answers while the
   transaction is open, and ends it as the next line says, "commit" or "abort"
{"do": "feed", "brokers", "config": {...}, "files": {topic: path}, "rate"}: writes the lines of the
   files, as `marquee generate` makes them, so many a second and the topics in step, keyed by request
   id; how many of each topic
{"do": "topics", "brokers", "create": {name: [partitions, {config}]}, "delete": [name]}
{"do": "grow", "brokers", "topics": {name: partitions}}: so many partitions in all from now on
{"do": "trim", "brokers", "before": [[topic, partition, offset]]}
{"do": "committed", "brokers", "group", "topics": {name: partitions}}
{"do": "commit", "brokers", "group", "offsets": [[topic, partition, offset, metadata | null]]}
{"do": "forget", "brokers", "group"}: deletes the group with all its offsets
{"do": "consume", "brokers", "topics": {name: partitions}}: all records there are
"""

import heapq
import json
import re
import sys
import time

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

asked = json.loads(sys.stdin.readline())
brokers = asked["brokers"]


def produce():
    config = {"bootstrap.servers": brokers, "linger.ms": 5, "queue.buffering.max.messages": 1000000}
    config.update(asked.get("config", {}))
    transaction = asked.get("transaction")
    producer = Producer(config)
    if transaction:
        producer.init_transactions()
        producer.begin_transaction()
    failed, placed = [], [None] * len(asked["records"])

    def told(number):
        def tell(error, message):
            if error is not None:
                failed.append(str(error))
            else:
                placed[number] = [message.partition(), message.offset()]

        return tell

    for number, record in enumerate(asked["records"]):
        given = {name: record[name] for name in ("partition", "timestamp") if name in record}
        headers = [tuple(header) for header in record.get("headers", [])] or None
        bytes_given = record.get("value_base16")
        producer.produce(
            record["topic"],
            key=record.get("key"),
            value=record.get("value") if bytes_given is None else bytes.fromhex(bytes_given),
            headers=headers,
            on_delivery=told(number),
            **given,
        )
        producer.poll(0)
    producer.flush(60)
    if transaction == "open":
        print(json.dumps({"failed": failed, "placed": placed}), flush=True)
        transaction = sys.stdin.readline().strip()
    if transaction == "commit":
        producer.commit_transaction()
    elif transaction == "abort":
        producer.abort_transaction()
    return {"failed": failed, "placed": placed}


def arrivals(topic, path):
    """Lines in their order, each at the time that its topic has come to by then."""
    fields = re.compile(rb'"request_id":"([^"]+)".*"ts":([0-9]+)')
    now_ms = 0
    with open(path, "rb") as lines:
        for line in lines:
            key, time_ms = fields.search(line).groups()
            now_ms = max(now_ms, int(time_ms))
            yield now_ms, topic, key, line.rstrip(b"\n")


def feed():
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 5, **asked.get("config", {})})
    failed, written = [], {topic: 0 for topic in asked["files"]}

    def told(error, message):
        if error is not None:
            failed.append(str(error))
        else:
            written[message.topic()] += 1

    start = time.monotonic()
    streams = [arrivals(topic, path) for topic, path in asked["files"].items()]
    for number, (time_ms, topic, key, line) in enumerate(heapq.merge(*streams)):
        if number % 500 == 0:
            producer.poll(0)
            time.sleep(max(0, start + number / asked["rate"] - time.monotonic()))
        while True:
            try:
                producer.produce(topic, line, key, timestamp=time_ms, on_delivery=told)
                break
            except BufferError:  # the broker is away, and what is under way is all that may be
                producer.poll(0.1)
    producer.flush(120)
    return {"failed": failed[:10], "written": written}


def topics():
    admin = AdminClient({"bootstrap.servers": brokers})
    if asked.get("delete"):
        for done in admin.delete_topics(asked["delete"], operation_timeout=30).values():
            done.result()
        time.sleep(1)
    new = [NewTopic(n, p, 1, config=c) for n, (p, c) in asked.get("create", {}).items()]
    if new:
        for done in admin.create_topics(new, operation_timeout=30).values():
            done.result()
        time.sleep(0.5)
    return {}


def grow():
    admin = AdminClient({"bootstrap.servers": brokers})
    new = [NewPartitions(name, count) for name, count in asked["topics"].items()]
    for done in admin.create_partitions(new).values():
        done.result()
    return {}


def trim():
    admin = AdminClient({"bootstrap.servers": brokers})
    before = [TopicPartition(t, p, o) for t, p, o in asked["before"]]
    for done in admin.delete_records(before).values():
        done.result()
    return {}


def partitions():
    return [TopicPartition(t, p) for t, n in asked["topics"].items() for p in range(n)]


def note_of(place):
    """The metadata of a commit. Where it comes from the broker, the client reads on behind its end
    (librdkafka keeps its length, and no zero byte): what follows a JSON object is cut off."""
    try:
        text = place.metadata or ""
    except UnicodeDecodeError as error:
        text = error.object.decode(errors="replace")
    try:
        return text[: json.JSONDecoder().raw_decode(text)[1]]
    except ValueError:
        return text


def committed():
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": asked["group"]})
    found = consumer.committed(partitions(), timeout=30)
    answer = []
    for place in found:
        low, high = consumer.get_watermark_offsets(place, timeout=30)
        answer.append([place.topic, place.partition, place.offset, low, high, note_of(place)])
    consumer.close()
    return {"offsets": answer}


def commit():
    offsets = [TopicPartition(t, p, o, m or "") for t, p, o, m in asked["offsets"]]
    admin = AdminClient({"bootstrap.servers": brokers})
    group = ConsumerGroupTopicPartitions(asked["group"], offsets)
    for done in admin.alter_consumer_group_offsets([group]).values():
        done.result()
    return {}


def forget():
    admin = AdminClient({"bootstrap.servers": brokers})
    for done in admin.delete_consumer_groups([asked["group"]]).values():
        done.result()
    return {}


def consume():
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "none", "enable.auto.commit": False})
    left, records = {}, []
    for place in partitions():
        low, high = consumer.get_watermark_offsets(place, timeout=30)
        if high > low:
            left[(place.topic, place.partition)] = high
    consumer.assign([TopicPartition(t, p, 0) for t, p in left])
    while left:
        message = consumer.poll(30)
        assert message is not None, f"nothing comes, and {left} is left"
        assert message.error() is None, message.error()
        place = (message.topic(), message.partition())
        records.append([*place, message.offset(), (message.key() or b"").decode(),
                        (message.value() or b"").decode(), message.timestamp()[1]])
        if message.offset() + 1 >= left[place]:
            del left[place]
    consumer.close()
    return {"records": records}


known = {
    "produce": produce,
    "feed": feed,
    "topics": topics,
    "grow": grow,
    "trim": trim,
    "committed": committed,
    "commit": commit,
    "forget": forget,
    "consume": consume,
}
json.dump(known[asked["do"]](), sys.stdout)
