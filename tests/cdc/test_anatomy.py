"""Messages taken apart: every byte belongs to one span, the spans say what the decoder reads, and faults are placed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc import encoder as pg
from cdc.test_pgoutput_properties import (
    BINARIES,
    FULL,
    GOOD,
    SAMPLES,
    TAKEN_BACK,
    TEXTS,
    TYPES,
    Change,
    Described,
    broken,
    decode,
    histories,
    streamed,
    whole,
)
from streamlab.cdc import LSN
from streamlab.cdc.anatomy import Anatomist, Dissection
from streamlab.cdc.messages import FORMS, Layout, Meaning
from streamlab.cdc.pgoutput import Decoder
from streamlab.cdc.rowcode import KINDS
from streamlab.errors import ProtocolError


def dissect(messages: list[bytes]) -> list[Dissection]:
    anatomist = Anatomist(TYPES)
    return [anatomist.read(message) for message in messages]


def check_covered(dissection: Dissection) -> None:
    ends = [0, *(span.end for span in dissection.spans)]
    assert [span.start for span in dissection.spans] == ends[:-1]
    assert ends[-1] == len(dissection.message)
    assert all(span.start < span.end or span.meaning is Meaning.VALUE for span in dissection.spans)


@given(histories())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_every_byte_of_every_message_is_in_one_span(history: tuple[list[Described], list[list[Change]]]) -> None:
    for messages in (whole(*history), streamed(*history)):
        found = dissect(messages)
        for dissection in found:
            assert dissection.fault == ""
            check_covered(dissection)
        rows = [
            {span.name: span.value for span in each.spans if span.group == "new row" and span.meaning is Meaning.VALUE}
            for each in found
            if any(span.group == "new row" for span in each.spans)
        ]
        events = [event for transaction in Decoder(protocol=2).receive(messages) for event in transaction]
        wanted = [event.new_data for event in events if event.new_data]
        if messages[-1][25:26] == b"C":  # in the order of the log, not of the commits
            for row, new in zip(rows, wanted, strict=True):
                assert all(new[name] == value for name, value in row.items())


@pytest.mark.parametrize("letter", FORMS)
def test_every_kind_of_message_is_among_the_samples(letter: str) -> None:
    found = [each for each in dissect(GOOD) if each.message[25:26] == letter.encode()]
    assert found
    for each in found:
        assert (each.kind, each.fault) == (FORMS[letter].name, "")
        check_covered(each)


@pytest.mark.parametrize("protocol", [1, 2, 3, 4])
def test_the_forms_are_those_of_the_decoder(protocol: int) -> None:
    known = {chr(letter) for letter in Decoder(protocol=protocol)._kinds} | {kind[:1].decode() for kind in KINDS}
    assert known == {letter for letter, form in FORMS.items() if form.since <= protocol}


def test_rows_are_named_and_typed_by_the_relation_before_them() -> None:
    relation, insert, update = dissect([FULL.relation(), FULL.insert(TEXTS), FULL.update(BINARIES, old=TEXTS)])
    assert (relation.table, insert.table) == ("s.t", "s.t")
    assert relation.values("column 2") == {"flags": 1, "name": "c1", "type": 21, "type modifier": -1}
    assert insert.values("Insert") == {"message": "I", "table": 7}
    assert {name: value for name, value in insert.values("new row").items() if name[0] == "c"} == {
        **{f"c{at}": value for at, value in enumerate(SAMPLES)},
        "columns": len(SAMPLES),
    }
    assert update.values("old row")["c6"] == update.values("new row")["c6"] == "text"
    assert "numeric Decimal('12345.6789')" in [span.shown for span in insert.spans]
    assert [span.shown for span in relation.spans if span.name == "type"][-1] == "1009: text[]"


def test_within_a_block_messages_begin_with_their_subtransaction() -> None:
    block = [pg.stream_start(6, first=True), FULL.relation(6), FULL.insert(BINARIES, 9), pg.stream_stop()]
    *_, insert, stop, outside = dissect([*block, FULL.insert(TEXTS)])
    assert insert.values("Insert") == {"message": "I", "subtransaction": 9, "table": 7}
    assert (stop.kind, outside.fault) == ("Stream Stop", "")
    assert outside.values("Insert") == {"message": "I", "table": 7}


def test_fields_say_what_they_mean() -> None:
    (begin,) = dissect([pg.begin(28357, 0x2C3DE80)])
    assert begin.values("Begin") == {
        "message": "B", "commit record": LSN(0x2C3DE80), "committed": pg.EPOCH, "transaction": 28357,
    }  # fmt: skip
    assert [span.shown for span in begin.spans][4:6] == ["'B': Begin", "0/2C3DE80"]
    cut, abort, names, unchanged = dissect(
        [pg.truncate([7, 8], flags=3), pg.stream_abort(2, 3, position=77), FULL.relation(),
         FULL.update([pg.TOAST, None, *TEXTS[2:]])]
    )  # fmt: skip
    assert [span.shown for span in cut.spans][6:] == [
        "3: CASCADE, RESTART IDENTITY", "7: not described before", "8: not described before",
    ]  # fmt: skip
    assert abort.values("Stream Abort")["abort record"] == LSN(77)
    assert names.values("Relation")["replica identity"] == "d"
    shown = {span.name: span.shown for span in unchanged.spans}
    assert (shown["c0"], shown["c1"]) == ("'u': unchanged, not sent", "'n': NULL")


def test_types_of_users_are_named_by_the_stream() -> None:
    table = pg.Table(8, "s", "moods", (("mood", 99),))
    _, relation = dissect([pg.type_(99, "s", "mood"), table.relation()])
    assert [span.shown for span in relation.spans if span.name == "type"] == ["99: s.mood"]


# -- faults -----------------------------------------------------------------------------------------


def test_a_message_that_is_cut_anywhere_is_shown_up_to_the_fault() -> None:
    for at, message in enumerate(GOOD):
        sound = dissect(broken(at, message))
        place = next(place for place, each in enumerate(sound) if each.message is message)
        anatomist = Anatomist(TYPES)
        for each in sound[:place]:
            anatomist.read(each.message)
        for cut in range(len(message)):
            found = anatomist.read(message[:cut])  # it learns nothing from what is cut
            assert found.fault
            check_covered(found)
            good = [span for span in found.spans if span.meaning is not None]
            assert len(good) >= len(found.spans) - 1
            # What was whole is read as before, and nothing but the last field is lost.
            assert [span[:2] for span in good] == [span[:2] for span in sound[place].spans][: len(good)]
            missing = sound[place].spans[len(good)]
            assert missing.start <= cut <= missing.end


def test_bytes_behind_a_message_are_a_fault() -> None:
    for at, message in enumerate(GOOD):
        (found,) = [each for each in dissect(broken(at, message + b"xy")) if each.message == message + b"xy"]
        check_covered(found)
        assert found.fault
        assert found.spans[-1][:2] == (len(message), len(message) + 2) or "has 8 bytes" in found.fault


def test_a_value_that_is_none_of_its_type_is_a_fault_and_the_rest_is_read() -> None:
    _, found = dissect([FULL.relation(), FULL.insert(["maybe", *TEXTS[1:]])])
    assert found.fault == "the value of c0 is no bool"
    assert found.values("new row")["c6"] == "text"
    check_covered(found)


def test_rows_of_a_table_that_was_not_described_are_read_without_names() -> None:
    (found,) = dissect([FULL.insert(TEXTS)])
    assert found.fault == "its table was not described before"
    assert found.values("new row")["column 7"] == b"text"
    check_covered(found)


@given(
    st.lists(
        st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3
    )
)
@settings(max_examples=100, deadline=None)
def test_what_the_decoder_takes_has_no_fault_in_its_form(changed: list[tuple[int, int, int]]) -> None:
    messages = list(GOOD)
    for at, place, value in changed:
        if at != TAKEN_BACK:
            message = bytearray(messages[at])
            message[25 + place % (len(message) - 25)] = value
            messages[at] = bytes(message)
    found = dissect(messages)
    for each in found:
        check_covered(each)
    try:
        decode(messages)
    except ProtocolError:
        return
    # Of values and times, the decoder does not look at all.
    lenient = ("the value of", "prepared cannot", "rolled back cannot", "aborted cannot")
    assert not [each.fault for each in found if each.fault and not each.fault.startswith(lenient)]


@given(st.lists(st.binary(max_size=60).map(pg.packed) | st.binary(max_size=60), max_size=5))
@settings(max_examples=100, deadline=None)
def test_noise_is_covered_too(noise: list[bytes]) -> None:
    for each in dissect([*GOOD[:3], *noise]):
        check_covered(each)


def test_a_layout_reads_its_fields_together_as_one_by_one() -> None:
    for form in FORMS.values():
        assert sum(reader.size for _, reader in form.fixed.parts) == len(form.fixed)
    assert len(Layout()) == 0


def test_memory_views_are_taken_as_the_reader_has_them() -> None:
    message: Any = memoryview(GOOD[2])
    assert dissect([message])[0].message == GOOD[2]
