"""Failpoints: free until armed, exact when armed, and a typo is refused. The children here are really killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlab import failpoints
from streamlab.errors import SettingsError
from streamlab.failpoints import VARIABLE, Action, failpoint, parse, passes, registered

ROOT = Path(__file__).parents[1]

SCRIPT = """
import logging, sys
from streamlab.failpoints import FailpointError, failpoint, passes
logging.basicConfig(stream=sys.stderr)
for number in range(1, 6):
    print(number, flush=True)
    try:
        failpoint("demo.step")
        failpoint("demo.other")
    except FailpointError as error:
        print("raised:", error, flush=True)
    finally:
        print("finally", number, flush=True)
print(passes(), flush=True)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "demo.py"
    path.write_text(SCRIPT)
    return path


def start(script: Path, armed: str | None) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if armed is not None:
        environment[VARIABLE] = armed
    return subprocess.Popen(
        [sys.executable, str(script)],
        env=environment,
        cwd=script.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(script: Path, armed: str | None) -> tuple[int, list[str], str]:
    with start(script, armed) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out.splitlines(), err


def test_nothing_happens_and_nothing_is_counted_while_unarmed(script: Path) -> None:
    for armed in (None, "", " ; "):
        code, out, err = run(script, armed)
        assert (code, err) == (0, "")
        assert out[-1] == "{}"
        assert len(out) == 11
    assert passes() == {}
    assert failpoint("never.declared") is None  # type: ignore[func-returns-value]


def test_unarmed_it_costs_next_to_nothing() -> None:
    """Compared with a call of an empty function in the same moment, so that a busy machine does not matter."""

    def empty(_: str) -> None: ...

    def cost(called: object) -> float:
        names: dict[str, object] = {"called": called, "clock": time.perf_counter}
        exec(  # noqa: S102
            "def loop():\n    begun = clock()\n    for _ in range(50_000): called('cdc.before_ack')\n"
            "    return clock() - begun",
            names,
        )
        loop = cast("Callable[[], float]", names["loop"])
        return min(loop() for _ in range(9))

    assert cost(failpoint) < 1.5 * cost(empty)


def test_kill_ends_the_process_at_that_pass_without_any_clean_up(script: Path) -> None:
    code, out, err = run(script, "demo.step=kill@3")
    assert code == -signal.SIGKILL
    assert out == ["1", "finally 1", "2", "finally 2", "3"]
    assert "failpoint demo.step, pass 3: kill@3" in err


def test_without_a_pass_it_is_the_first(script: Path) -> None:
    assert run(script, "demo.step=kill")[:2] == (-signal.SIGKILL, ["1"])


def test_exit_gives_the_code_and_cleans_nothing_up(script: Path) -> None:
    assert run(script, "demo.other=exit:17@2")[:2] == (17, ["1", "finally 1", "2"])


def test_raise_raises_at_that_pass_alone(script: Path) -> None:
    code, out, _ = run(script, "demo.step=raise@2")
    assert code == 0
    assert [line for line in out if line.startswith("raised")] == [
        "raised: The failpoint demo.step was armed to raise. Unset STREAMLAB_FAILPOINTS."
    ]
    assert out.index("2") < out.index(next(line for line in out if line.startswith("raised"))) < out.index("3")


def test_raise_without_a_pass_raises_at_each(script: Path) -> None:
    _, out, _ = run(script, "demo.step=raise")
    assert sum(line.startswith("raised") for line in out) == 5
    assert out[-1] == "{'demo.step': 5}", "the second point is never reached"


def test_all_points_are_counted_as_soon_as_one_is_armed(script: Path) -> None:
    _, out, _ = run(script, "demo.other=raise@99")
    assert out[-1] == "{'demo.step': 5, 'demo.other': 5}"


def test_sleep_waits(script: Path) -> None:
    begun = time.monotonic()
    code, out, err = run(script, " demo.step = sleep:0.4@2 ; ")
    assert time.monotonic() - begun >= 0.4
    assert (code, out[-1]) == (0, "{'demo.step': 5, 'demo.other': 5}")
    assert err.count("sleep:0.4@2") == 1


def test_several_actions_of_one_point(script: Path) -> None:
    code, out, err = run(script, "demo.step=sleep:0.01;demo.step=raise@2;demo.step=exit:3@4")
    assert code == 3
    assert "raised" in out[3]
    assert err.count("sleep:0.01") == 4


def test_stop_freezes_the_process_until_it_is_continued(script: Path) -> None:
    with start(script, "demo.step=stop@2") as process:
        try:
            child = psutil.Process(process.pid)
            deadline = time.monotonic() + 30
            while child.status() != psutil.STATUS_STOPPED:
                assert time.monotonic() < deadline, f"the child is {child.status()}"
                assert process.poll() is None
                time.sleep(0.01)
            child.resume()
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert out.splitlines()[-1] == "{'demo.step': 5, 'demo.other': 5}"


def test_passes_are_counted_over_all_threads(tmp_path: Path) -> None:
    script = tmp_path / "threads.py"
    script.write_text(
        "import threading\n"
        "from streamlab.failpoints import failpoint, passes\n"
        "def work():\n"
        "    for _ in range(5000): failpoint('demo.step')\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "for one in threads: one.start()\n"
        "for one in threads: one.join()\n"
        "print(passes()['demo.step'])\n"
    )
    assert run(script, "demo.step=raise@999999")[1] == ["40000"]
    code, out, _ = run(script, "demo.step=kill@20000")
    assert (code, out) == (-signal.SIGKILL, [])


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("demo.step=kil@3", "demo.step=kill@3"),
        ("demo.step=sigkill", "demo.step=kill"),
        ("demo.setp=kill@3", "demo.step=kill@3"),
        ("step=kill", "demo.step=kill"),
        ("Demo.Step=KILL", "demo.step=kill"),
        ("demo-step=kill", "demo.step=kill"),
        ("demo.step", "demo.step=kill"),
        ("demo.step=", "demo.step=kill"),
        ("demo.step:kill", "demo.step=kill"),
        ("demo.step=kill@0", "demo.step=kill"),
        ("demo.step=kill@first", "demo.step=kill"),
        ("demo.step=kill:9@2", "demo.step=kill@2"),
        ("demo.step=sleep", "demo.step=sleep:0.5"),
        ("demo.step=sleep(0.2)@4", "demo.step=sleep:0.2@4"),
        ("demo.step=wait:2", "demo.step=sleep:2"),
        ("demo.step=sleep:99999", "demo.step=sleep:999"),
        ("demo.step=sleep:-1", "demo.step=sleep:1"),
        ("demo.step=exit", "demo.step=exit:1"),
        ("demo.step=exit:256", "demo.step=exit:255"),
        ("demo.step=exit:1.5", "demo.step=exit:1"),
        ("demo.step=error@7", "demo.step=raise@7"),
        ("demo.step=kill@2,demo.other=stop", "demo.step=kill@2;demo.other=stop"),
        ("=kill", "demo.other=kill"),
    ],
)
def test_a_wrong_form_is_refused_with_the_nearest_right_one(wrong: str, nearest: str) -> None:
    known = ["demo.step", "demo.other"]
    with pytest.raises(SettingsError) as caught:
        parse(f"demo.other=raise;{wrong}", known)
    assert repr(wrong) in caught.value.problem
    assert caught.value.problem.startswith(f"{VARIABLE} holds ")
    assert caught.value.fix == f"The nearest right form is: {nearest}"
    parse(nearest, known)


def test_a_typo_in_the_environment_ends_the_program_before_it_begins(script: Path) -> None:
    code, out, err = run(script, "demo.stpe=kill")
    assert (code, out) == (1, [])
    assert "SettingsError" in err
    assert "The nearest right form is: demo.step=kill" in err
    assert "names no failpoint of the code" in err


def test_points_that_were_armed_and_not_reached_are_reported_at_the_end(script: Path) -> None:
    code, _, err = run(script, "dead_letters.handled=kill;demo.step=raise@6;demo.other=raise@5")
    assert code == 0
    assert "failpoint dead_letters.handled=kill: passed 0 times only" in err
    assert "failpoint demo.step=raise@6: passed 5 times only" in err
    assert "demo.other" not in err, "it was reached"


texts = st.text(alphabet=st.sampled_from("adeiklmopstxZ.=:@;,_-0123456789 é"), max_size=30)


@given(texts | st.text(max_size=20), st.sampled_from([(), ("demo.step", "cdc.before_ack")]))
def test_any_text_is_either_read_or_refused_with_a_form_that_is_right(text: str, known: tuple[str, ...]) -> None:
    try:
        read = parse(text, known)
    except SettingsError as error:
        nearest = error.fix.removeprefix("The nearest right form is: ")
        assert nearest != error.fix
        assert parse(nearest, known), "the suggestion is itself refused"
    else:
        again = ";".join(f"{name}={action}" for name, actions in read.items() for action in actions)
        assert parse(again, known) == read


names = st.from_regex(failpoints._NAME, fullmatch=True)
actions = st.builds(
    Action,
    kind=st.sampled_from(["kill", "stop", "raise"]),
    nth=st.none() | st.integers(1, 999_999_999),
) | st.one_of(
    st.builds(Action, st.just("exit"), st.integers(0, 255).map(str), st.none() | st.integers(1, 9)),
    st.builds(Action, st.just("sleep"), st.decimals(0, 3600, places=3).map(str), st.none() | st.integers(1, 9)),
)


@given(st.lists(st.tuples(names, actions), max_size=6))
def test_what_is_written_is_read_back(parts: list[tuple[str, Action]]) -> None:
    read = parse(" ; ".join(f"{name}={action}" for name, action in parts))
    assert {name: list(found) for name, found in read.items()} == {
        name: [action for other, action in parts if other == name] for name, _ in parts
    }


def test_the_points_of_the_package_are_found_in_its_source() -> None:
    found = registered()
    assert {"dead_letters.claimed", "dead_letters.handled", "dead_letters.committed"} <= set(found)
    assert list(found) == sorted(found)
    for places in found.values():
        for place in places:
            path, _, line = place.rpartition(":")
            assert "failpoint(" in Path(path).read_text(encoding="utf-8").splitlines()[int(line) - 1]


def test_every_point_of_the_package_has_one_place_and_is_named_after_its_room() -> None:
    for name, places in registered().items():
        assert len(places) == 1, f"{name} stands at {places}: a crash there would say nothing"
        inside = Path(places[0]).relative_to(Path(failpoints.__file__).parent)
        assert name.partition(".")[0] == inside.parts[0].partition(".")[0].removesuffix(".py"), places


def test_a_harness_finds_the_points_of_a_module_a_directory_and_a_file(tmp_path: Path) -> None:
    assert set(registered("streamlab.dead_letters")) == set(registered("streamlab.dead_letters.replay"))
    assert registered("streamlab.errors") == {}
    room = tmp_path / "room"
    room.mkdir()
    (room / "a.py").write_text('"""failpoint("in.text")"""\nx.failpoint("a.one")\n# failpoint("in.comment")\n')
    (room / "b.py").write_text('def f():\n    failpoint("a.one")\n    failpoint("b.two")\n')
    (room / "c.txt").write_text('failpoint("c.three")')
    assert registered(room) == {"a.one": (f"{room}/a.py:2", f"{room}/b.py:2"), "b.two": (f"{room}/b.py:3",)}
    assert set(registered(str(room / "a.py"), room / "b.py")) == {"a.one", "b.two"}


@pytest.mark.parametrize(
    "source",
    ['failpoint(f"a.{b}")', "failpoint(name)", "failpoint()", 'failpoint("nodot")', 'failpoint("A.b")', "failpoint(3)"],
)
def test_a_point_that_cannot_be_found_by_its_name_is_refused(source: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(f"\n{source}\n")
    with pytest.raises(SettingsError, match=re.escape(f"{path}:2")):
        registered(path)


def test_source_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("failpoint(\n")
    with pytest.raises(SettingsError, match="cannot be read as Python"):
        registered(path)
    for missing in ("streamlab.nowhere", str(tmp_path / "nowhere")):
        with pytest.raises(SettingsError, match="neither a module"):
            registered(missing)
