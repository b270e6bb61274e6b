"""docs/seed-map.md covers every name of the guide that the project began with, and claims nothing that is not there."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]

# The parts of the project that bring what is not there yet.
PARTS = {
    "PostgreSQL CDC",
    "MySQL and Kafka Connect",
    "event store",
    "materialized views",
    "aggregation",
    "dashboard",
    "delivery",
    "operations",
}

# Every class, method, field, table and configuration name of the guide. Data: it is not read from anywhere.
CLASSES = {
    "ChangeEvent": "operation table_name old_data new_data commit_timestamp transaction_id lsn",
    "PostgreSQLCDC": """
        __init__ dsn publication slot_name replication_conn consumer_thread running handlers
        initialize add_handler start stop _consume_changes _process_message""",
    "DomainEvent": "event_type aggregate_id timestamp payload metadata to_json",
    "EventStore": "__init__ db_pool initialize append _notify_subscribers _deliver_event",
    "ConcurrencyError": "",
    "MaterializedViewManager": """
        __init__ db_pool create_order_summary_view refresh_view incremental_refresh_order_summary""",
    "DatabaseSourceConnector": """
        __init__ config running worker_thread offset version start stop
        _poll_loop _fetch_changes _create_record _send_to_kafka _load_offset _save_offset""",
    "StreamingAggregation": """
        window_size_seconds max_events aggregations _events add_event get_results
        _evict_old_events _update_aggregations _remove_from_aggregations""",
    "TimeSeriesAggregator": "__init__ bucket_size buckets record get_buckets",
    "RealTimeDashboardBackend": """
        __init__ db cdc aggregation cache cache_ttl initialize get_dashboard_data
        _load_initial_data _on_data_change _periodic_cache_refresh""",
    "BackpressureHandler": "__init__ max_queue_size drop_policy queue dropped_count total_processed add process",
    "ExactlyOnceProcessor": """
        __init__ db consumer_group processed_offsets initialize process_batch _process_single_event _save_offset""",
}
COMPOSE = {
    "services.mysql": """
        image environment.MYSQL_ROOT_PASSWORD environment.MYSQL_DATABASE environment.MYSQL_USER
        environment.MYSQL_PASSWORD command.--server-id command.--log-bin command.--binlog-format
        command.--binlog-row-image ports volumes""",
    "services.debezium": """
        image ports environment.BOOTSTRAP_SERVERS environment.GROUP_ID environment.CONFIG_STORAGE_TOPIC
        environment.OFFSET_STORAGE_TOPIC environment.STATUS_STORAGE_TOPIC
        environment.CONFIG_STORAGE_REPLICATION_FACTOR environment.OFFSET_STORAGE_REPLICATION_FACTOR
        environment.STATUS_STORAGE_REPLICATION_FACTOR depends_on""",
    "services.kafka": """
        image ports environment.KAFKA_NODE_ID environment.KAFKA_LISTENER_SECURITY_PROTOCOL_MAP
        environment.KAFKA_LISTENERS environment.KAFKA_ADVERTISED_LISTENERS
        environment.KAFKA_CONTROLLER_QUORUM_VOTERS environment.KAFKA_PROCESS_ROLES
        environment.KAFKA_CONTROLLER_LISTENER_NAMES environment.KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR
        environment.CLUSTER_ID""",
}
CONNECTORS = {
    "mysql-source-connector": """
        name connector.class database.hostname database.port database.user database.password database.server.id
        database.server.name database.include.list table.include.list database.history.kafka.bootstrap.servers
        database.history.kafka.topic include.schema.changes transforms transforms.unwrap.type
        transforms.unwrap.drop.tombstones transforms.unwrap.delete.handling.mode key.converter value.converter""",
    "jdbc-source-connector": """
        name connector.class connection.url connection.user connection.password topic.prefix mode
        timestamp.column.name validate.non.null query poll.interval.ms batch.max.rows topics""",
    "jdbc-sink-connector": """
        name connector.class connection.url connection.user connection.password topics table.name.format pk.mode
        pk.fields auto.create auto.evolve insert.mode fields.whitelist""",
}
OTHERS = {
    "handle_change",
    "CREATE PUBLICATION ... FOR ALL TABLES",
    "CREATE_REPLICATION_SLOT",
    "start_replication: start_pos",
    "start_replication: options.format",
    "start_replication: options.include_transaction",
    "version",
    "volumes.mysql_data",
    "table events",
    "table subscriptions",
    "table order_summary",
    "table materialized_view_refreshes",
    "table processed_offsets",
    "practice: retry with backoff",
    "practice: dead letter queues",
    "practice: monitoring",
    "practice: alerting",
    "practice: test failure scenarios",
    "practice: plan capacity",
}
NAMES = (
    {*CLASSES, *COMPOSE}
    | {f"{name}.{part}" for table in (CLASSES, COMPOSE) for name, parts in table.items() for part in parts.split()}
    | {f"{name}: {key}" for name, keys in CONNECTORS.items() for key in keys.split()}
    | OTHERS
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of one of the page's tables."""

    seed: str
    ours: tuple[str, ...]
    state: str
    why: str


def rows() -> list[Row]:
    found = []
    for line in (ROOT / "docs/seed-map.md").read_text(encoding="utf-8").splitlines():
        if not line.startswith("| `"):
            continue
        cells = [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
        assert len(cells) == 4, line
        seed = re.fullmatch(r"`([^`]+)`", cells[0])
        assert seed, line
        found.append(Row(seed[1], tuple(re.findall(r"`([^`]+)`", cells[1])), cells[2], cells[3]))
    return found


ROWS = rows()


def resolve(target: str) -> Any:
    """What a target of the page stands for.

    Raises
    ------
    LookupError
        There is nothing of that name.
    """
    if match := re.fullmatch(r"([\w./-]+\.yml): ([\w.-]+)", target):
        value: Any = yaml.safe_load((ROOT / match[1]).read_text(encoding="utf-8"))
        keys = match[2].split(".")
        for position, key in enumerate(keys):
            if key not in value:
                raise LookupError(f"{target}: no {'.'.join(keys[: position + 1])}")
            value = value[key]
        return value
    if match := re.fullmatch(r"(streamlab(?:\.\w+)*)(?:\[\"([^\"]+)\"\])?", target):
        found = attribute(match[1])
        return found[match[2]] if match[2] else found
    path = ROOT / target
    if not path.exists():
        raise LookupError(target)
    return path


def attribute(name: str) -> Any:
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        module = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            # A module that is there and fails on one of its own imports is broken, not missing.
            if error.name and (module == error.name or module.startswith(error.name + ".")):
                continue
            raise
        for part in parts[cut:]:
            if part in getattr(found, "__dataclass_fields__", {}):
                return found.__dataclass_fields__[part]
            if not hasattr(found, part):
                raise LookupError(name)
            found = getattr(found, part)
        return found
    raise LookupError(name)


def test_no_name_of_the_seed_is_missing_and_none_is_invented() -> None:
    listed = [row.seed for row in ROWS]
    assert set(listed) == NAMES
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("row", [row for row in ROWS if row.state == "here"], ids=lambda row: row.seed)
def test_what_is_here_is_here(row: Row) -> None:
    assert row.ours
    for target in row.ours:
        resolve(target)


@pytest.mark.parametrize(
    "target", sorted({target for row in ROWS if row.state.startswith("later: ") for target in row.ours})
)
def test_what_is_later_is_not_here_yet(target: str) -> None:
    """When this fails, the part has come: say `here` in docs/seed-map.md."""
    with pytest.raises(LookupError):
        resolve(target)


def test_every_row_says_where_and_why() -> None:
    for row in ROWS:
        assert row.why, row.seed
        if row.state == "dropped":
            assert row.ours == (), row.seed
        elif row.state != "here":
            assert row.state.removeprefix("later: ") in PARTS, row.seed
            assert row.ours, row.seed


@pytest.mark.parametrize(
    "target",
    [
        "streamlab.settings.no_such_thing",
        "streamlab.no_such_module.Name",
        'streamlab.stack.mysql.SETTINGS["no-such-key"]',
        "docker-compose.yml: services.mysql.no_such_key",
        "docker/no-such-file.sql",
    ],
)
def test_a_false_claim_is_noticed(target: str) -> None:
    with pytest.raises(LookupError):
        resolve(target)
