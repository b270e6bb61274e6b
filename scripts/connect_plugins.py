"""Write streamlab/connect/plugins.json: the keys that each plugin of the running Connect worker reads.

    python scripts/connect_plugins.py            ask the running worker (streamlab up connect), write the table
    python scripts/connect_plugins.py --check    write nothing; exit code 1 where the table is another one

The worker tells the keys that a plugin defines, and the values that it recommends. Debezium reads more than it defines:
keys of its signal channels, of its schema history, of topic naming; the Avro converter reads many and defines none.
Those stand as string constants in the constant pools of the classes (The Java Virtual Machine Specification, section
4.4), which is where they are taken from.
"""

from __future__ import annotations

import argparse
import json
import re
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streamlab import settings
from streamlab.connect.connectors.common import AVRO_CONVERTER
from streamlab.connect.rest import Rest, path
from streamlab.stack.jars import entry_name, pom_version

TABLE = Path(__file__).parents[1] / "streamlab" / "connect" / "plugins.json"

KEY = re.compile(r"[a-z][A-Za-z0-9_]*\.|[a-z][A-Za-z0-9_]*(\.[A-Za-z0-9_-]+)+\.?")
# Class -> what begins there is a key of a connector's configuration; a name that ends with a dot is passed on below it.
SHARED = {
    "io/debezium/config/CommonConnectorConfig": "",
    "io/debezium/relational/RelationalDatabaseConnectorConfig": "",
    "io/debezium/pipeline/signal/channels/FileSignalChannel": "signal.",
    "io/debezium/pipeline/signal/channels/KafkaSignalChannel": "signal.",
    "io/debezium/schema/AbstractTopicNamingStrategy": "topic.",
    "io/debezium/schema/AbstractRegexTopicNamingStrategy": "topic.",
}
HISTORY = {
    "io/debezium/relational/history/SchemaHistory": "schema.history.internal.",
    "io/debezium/storage/kafka/history/KafkaSchemaHistory": "schema.history.internal.",
    "io/debezium/storage/file/history/FileSchemaHistory": "schema.history.internal.",
}
CLASSES = {
    "mysql": {**SHARED, **HISTORY, "io/debezium/connector/binlog/BinlogConnectorConfig": ""},
    "postgres": {**SHARED, "io/debezium/connector/postgresql/PostgresConnectorConfig": ""},
    "jdbc": {"io/debezium/connector/jdbc/JdbcSinkConnectorConfig": ""},
    "avro": {
        "io/apicurio/registry/resolver/SchemaResolverConfig": "apicurio.",
        "io/apicurio/registry/serde/SerdeConfig": "apicurio.",
        "io/apicurio/registry/serde/avro/AvroKafkaSerdeConfig": "apicurio.",
        "io/apicurio/registry/utils/converter/SerdeBasedConverter": "apicurio.",
        "io/apicurio/registry/utils/converter/avro/AvroDataConfig": "",
    },
}
# Class of a plugin -> where its classes stand above, and the cache entry and the directory of its jars.
PLACES = {
    "io.debezium.connector.mysql.MySqlConnector": ("mysql", "debezium", "debezium-connector-mysql"),
    "io.debezium.connector.postgresql.PostgresConnector": ("postgres", "debezium", "debezium-connector-postgres"),
    "io.debezium.connector.jdbc.JdbcSinkConnector": ("jdbc", "debezium", "debezium-connector-jdbc"),
    AVRO_CONVERTER: ("avro", "converters", "apicurio-converter"),
}
# What stands in those classes and is no key of a configuration: names for code, and keys that are read below internal.
NO_KEYS = re.compile(
    r"(io|java|org|jakarta|test|task|mongodb)\..*|multi\.partition\.mode|legacy\..*|log\.position\..*|advanced\..*|"
    r"snapshot\.scan\..*|hibernate\..+|signal\.|schema\.history\.internal\.|notification\.|database\.|queue\..*"
)
# Debezium's own way around an error that should be repeated; as all internal keys it is defined without that word.
INTERNAL = {"custom.retriable.exception"}


def constants(content: bytes) -> Iterator[str]:
    """The strings that a Java class names as constants."""
    (count,) = struct.unpack_from(">H", content, 8)
    texts: dict[int, str] = {}
    named = []
    at, number = 10, 1
    while number < count:
        tag = content[at]
        if tag == 1:
            (length,) = struct.unpack_from(">H", content, at + 1)
            texts[number] = content[at + 3 : at + 3 + length].decode("utf-8", "replace")
            at += 3 + length
        else:
            if tag == 8:
                named += struct.unpack_from(">H", content, at + 1)
            at += {7: 3, 8: 3, 16: 3, 19: 3, 20: 3, 15: 4, 5: 9, 6: 9}.get(tag, 5)
        # A long or a double takes two places.
        number += 2 if tag in {5, 6} else 1
    return (texts[each] for each in named)


def read_keys(directory: Path, classes: dict[str, str]) -> set[str]:
    """The keys that classes of a plugin name, whether they are defined or not."""
    found = set()
    seen = set()
    for jar in sorted(directory.glob("*.jar")):
        with zipfile.ZipFile(jar) as archive:
            for name, begin in classes.items():
                file = f"{name}.class"
                if file in archive.namelist():
                    seen.add(name)
                    found |= {
                        f"internal.{text}" if text in INTERNAL else text
                        for text in constants(archive.read(file))
                        if KEY.fullmatch(text) and text.startswith(begin) and not NO_KEYS.fullmatch(text)
                    }
    if missing := set(classes) - seen:
        raise SystemExit(f"{directory} has no longer: {', '.join(sorted(missing))}")
    return found


def table() -> dict[str, Any]:
    """What plugins.json should hold."""
    rest = Rest(settings.connect_url())
    plugins = {}
    for each in rest.request("GET", "/connector-plugins", params={"connectorsOnly": "false"}).json():
        name, kind = each["class"], each["type"]
        if ".mirror." in name:
            continue
        if name in plugins:
            # Some converters are told twice: they are converters of headers, too.
            plugins[name]["also"] = sorted({kind, *plugins[name].get("also", [])} - {plugins[name]["kind"]})
            continue
        defined = rest.request("GET", path("connector-plugins", name, "config")).json()
        values = _values(rest, name) if kind in {"source", "sink"} else {}
        keys = {key["name"]: [key["type"], *values.get(key["name"], [])] for key in defined}
        plugins[name] = {"kind": kind, "version": each.get("version") or "", "keys": dict(sorted(keys.items()))}
        if name in PLACES:
            classes, entry, directory = PLACES[name]
            cache = settings.cache() / entry_name(entry, pom_version(entry, f"{entry}.version"))
            undefined = read_keys(cache / directory, CLASSES[classes]) - set(keys)
            plugins[name]["undefined"] = sorted(undefined)
    rest.close()
    return dict(sorted(plugins.items()))


def _values(rest: Rest, name: str) -> dict[str, list[str]]:
    """The values that a connector recommends for a key; not the classes, which depend on what is installed."""
    told = rest.request(
        "PUT", path("connector-plugins", name, "config", "validate"), json={"connector.class": name, "name": "x"}
    ).json()
    return {
        each["value"]["name"]: sorted(each["value"]["recommended_values"])
        for each in told["configs"]
        if each["definition"]["type"] == "STRING" and not each["value"]["name"].endswith("plugin.version")
    }


def text(plugins: dict[str, Any]) -> str:
    """One line for each key, so that another version of a plugin shows as a readable difference."""
    out = []
    for name, plugin in plugins.items():
        keys = ",\n".join(f"   {json.dumps(key)}: {json.dumps(what)}" for key, what in plugin["keys"].items())
        also = f' "also": {json.dumps(plugin["also"])},' if plugin.get("also") else ""
        head = f' "{name}": {{\n  "kind": "{plugin["kind"]}",{also} "version": "{plugin["version"]}",\n  "keys": {{'
        undefined = plugin.get("undefined")
        tail = ",\n".join(f"   {json.dumps(key)}" for key in undefined) if undefined else ""
        out.append(
            head + (f"\n{keys}\n  }}" if keys else "}") + (f',\n  "undefined": [\n{tail}\n  ]' if tail else "") + "\n }"
        )
    return "{\n" + ",\n".join(out) + "\n}\n"


def main() -> int:
    """Write or check the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; say whether the table is right")
    made = text(table())
    if not parser.parse_args().check:
        TABLE.write_text(made, encoding="utf-8")
        return 0
    if TABLE.read_text(encoding="utf-8") == made:
        return 0
    sys.stderr.write("streamlab/connect/plugins.json is not what the plugins say: run scripts/connect_plugins.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
