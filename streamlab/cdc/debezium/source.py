"""`DebeziumSource`: the changes of a database that Debezium has written to Kafka, as the same `ChangeEvent`s.

A topic is a log of its own. It keeps order within a partition, and knows nothing of the source's transactions; so each
change stands for itself, in a `Transaction` of one, unless the topic of Debezium's transaction metadata is read too:
then they are put together again, over all topics.

Positions are Kafka's offsets, and the group's committed offsets say how far its readers have come: an offset is
committed when the change before it is acknowledged, and never by itself. A record that Debezium has written twice,
since it was killed in between, comes twice, at two positions.

Source: Debezium's manual; Kafka's protocol guide, "Group membership"; docs/values.md for what values become.
"""

from __future__ import annotations

from streamlab.cdc.debezium.topic_reader import TopicReader

__all__ = ["DebeziumSource"]


class DebeziumSource(TopicReader):
    """A member of a consumer group that reads topics of a Debezium source.

    ::

        with DebeziumSource(bootstrap, ["shop.shop.orders"], "warehouse") as cdc:
            for transaction in cdc.transactions():
                store(transaction)
                cdc.acknowledge(transaction)

    Each iteration begins after the last acknowledgement: what was handed out and not acknowledged comes again. Within
    one iteration nothing comes twice, as long as its partitions are not given to another member and back. An
    interrupted cell takes nothing away.

    Delivery: at least once, in the order of each partition; in commit order with `transaction_topic`. Keyed by
    ``(position, ordinal)``: the place in Kafka, and the number in the source's transaction where that is known.

    Threads: one iterates; `acknowledge`, `lag`, `pause`, `resume`, `stop` and the properties may be used from any.
    Partitions come and go while it iterates. Whoever does not come back for the next change within
    ``max.poll.interval.ms`` (five minutes; see `options`) loses them: `pause` in place of that.

    Parameters
    ----------
    bootstrap : str
        Kafka's bootstrap servers.
    topics : sequence of str
        Names, of full envelopes or unwrapped rows; they may not exist yet. One that begins with ``^`` is a regular
        expression.
    group : str
        The consumer group. Its readers share the partitions, and what each has acknowledged is kept under its name.
    transaction_topic : str, optional
        ``<prefix>.transaction`` of a connector with ``provide.transaction.metadata=true``: transactions of the source
        are put together. One reader has to have all topics then.
    start : {"earliest", "latest"}
        Where the group begins in a partition of which it has committed nothing.
    resume_after : KafkaPosition or str, optional
        Where to begin in the partitions that it names, whatever the group has committed: the end of what the sink
        holds.
    types : mapping, optional
        For JSON without schemas: ``table`` or ``schema.table`` -> column -> type, as docs/values.md lists them.
    configuration : mapping, optional
        For JSON without schemas: the connector's configuration; or at least its ``decimal.handling.mode=string`` and
        ``time.precision.mode=isostring``, which make sure that no value is mistaken for another.
    replica_identity : {"default", "full"}
        Of PostgreSQL's tables. With ``default`` the old row is its key, for that is what PostgreSQL logs; Debezium
        fills the rest with NULL and 0, which is left out here.
    schema_registry : str, optional
        URL of a registry that speaks Confluent's protocol, for Avro and Protobuf.
    retry, dead_letters : RetryPolicy and DeadLetters, optional
        What becomes of a change whose handler fails, see `streamlab.cdc.handling`. By default the stream stops.
    patience : float
        Seconds that a broker may be away, and that a transaction may lack changes, until that is an error.
    options : mapping, optional
        Of librdkafka, such as ``security.protocol`` or ``max.poll.interval.ms``.
    """
