"""The generator by its properties: no server is needed to know what it plans."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlab.errors import StreamlabError
from streamlab.workload import MIXES, TABLES, Action, Ledger, Mix, Parameters, PlannedTransaction, Planner, Verb
from streamlab.workload.draw import Draw, Zipf
from streamlab.workload.photo import photo

PARENTS = {
    "orders": (("customer_id", "customers"),),
    "order_items": (("order_id", "orders"), ("product_id", "products")),
}

mixes = st.one_of(
    st.sampled_from(sorted(MIXES)).map(MIXES.__getitem__),
    st.dictionaries(st.sampled_from([each.value for each in Action]), st.integers(1, 9), min_size=1).map(Mix.of),
)
parameters = st.builds(
    Parameters,
    seed=st.integers(-(2**40), 2**40),
    customers=st.integers(1, 8),
    products=st.integers(1, 5),
    skew=st.sampled_from([0.0, 1.1, 3.0]),
    tick=st.sampled_from([timedelta(microseconds=10), timedelta(seconds=1)]),
)
calls = st.lists(st.tuples(mixes, st.sampled_from([1, 1, 1, 7, 40])), max_size=25)


def history(given_parameters: Parameters, made: list[tuple[Mix, int]]) -> list[PlannedTransaction]:
    planner = Planner(given_parameters)
    return [planner.opening(), *(planner.plan(mix, size) for mix, size in made)]


@given(parameters, calls)
@settings(max_examples=40, deadline=None)
def test_equal_parameters_and_calls_give_equal_plans(shop: Parameters, made: list[tuple[Mix, int]]) -> None:
    assert history(shop, made) == history(shop, made)


def test_another_seed_is_another_history() -> None:
    made = [(MIXES["balanced"], 1)] * 5
    assert history(Parameters(seed=7), made) != history(Parameters(seed=8), made)


@given(parameters, calls)
@settings(max_examples=60, deadline=None)
def test_every_operation_is_possible_where_it_stands(shop: Parameters, made: list[tuple[Mix, int]]) -> None:
    """Keys are new and never reused, rows that change are there, parents stand while children do."""
    rows: dict[str, dict[tuple[int, ...], dict[str, object]]] = {name: {} for name in TABLES}
    used: dict[str, set[tuple[int, ...]]] = {name: set() for name in TABLES}
    children: dict[tuple[str, object], int] = {}
    for plan in history(shop, made):
        inserted, changed = set(), dict[tuple[str, tuple[int, ...]], datetime]()
        assert plan.operations
        for operation in plan.operations:
            name, key = operation.table.name, operation.key
            here = rows[name]
            if operation.verb is Verb.INSERT:
                assert key not in used[name]
                used[name].add(key)
                inserted.add((name, key))
                here[key] = operation.changes()
                for column, parent in PARENTS.get(name, ()):
                    value = here[key][column]
                    assert (value,) in rows[parent]
                    children[parent, value] = children.get((parent, value), 0) + 1
            elif operation.verb is Verb.UPDATE:
                assert set(operation.changes()) < set(here[key])
                here[key].update(operation.changes())
            else:
                assert (name, key) not in inserted, "a plan that leaves no trace"
                row = here.pop(key)
                assert not children.get((name, key[0])) or name == "order_items"
                for column, parent in PARENTS.get(name, ()):
                    children[parent, row[column]] -= 1
            if operation.values:
                at = operation.values[-1]
                assert isinstance(at, datetime)
                assert changed.get((name, key), at) <= at <= plan.at
                changed[name, key] = at
        check_sums(rows)


def check_sums(rows: dict[str, dict[tuple[int, ...], dict[str, object]]]) -> None:
    """An order's total is that of its items, at every commit; the stock never goes below nothing."""
    sums: dict[object, object] = {}
    for item in rows["order_items"].values():
        assert item["amount"] == item["quantity"] * item["unit_price"]  # type: ignore[operator]
        sums[item["order_id"]] = sums.get(item["order_id"], 0) + item["amount"]  # type: ignore[operator]
    assert {key[0]: order["total"] for key, order in rows["orders"].items()} == sums
    assert all(product["stock"] >= 0 for product in rows["products"].values())  # type: ignore[operator]


@given(parameters, calls)
@settings(max_examples=40, deadline=None)
def test_no_two_transactions_share_an_instant(shop: Parameters, made: list[tuple[Mix, int]]) -> None:
    last = shop.start
    for plan in history(shop, made):
        instants = {operation.values[-1] for operation in plan.operations if operation.values}
        assert all(last < at for at in instants)  # type: ignore[operator]
        assert len(instants) <= max(len(plan.actions), shop.customers + shop.products)
        assert plan.at > last
        last = plan.at


@given(parameters, st.lists(st.sampled_from(["plan", "open", "commit", "rollback"]), max_size=40))
@settings(max_examples=40, deadline=None)
def test_nothing_touches_what_an_open_order_has_locked(shop: Parameters, made: list[str]) -> None:
    planner = Planner(shop)
    ledger = Ledger()
    ledger.record(planner.opening())
    opened = []
    for what in made:
        if what == "plan":
            plan = planner.plan(MIXES["balanced"], 7)
            touched = {
                (operation.table.name, operation.key)
                for operation in plan.operations
                if operation.verb is not Verb.INSERT
            }
            for open_plan, order in opened:
                assert ("customers", (order.customer,)) not in touched
                assert not {("products", (line.product,)) for line in order.lines} & touched
                assert not {(each.table.name, each.key) for each in open_plan.operations} & touched
            ledger.record(plan)
        elif what == "open":
            opened.append(planner.open_order())
        elif opened:
            open_plan, order = opened.pop(0)
            planner.close_order(order, committed=what == "commit")
            if what == "commit":
                ledger.record(open_plan)


def test_every_action_happens_in_a_balanced_mix() -> None:
    plans = history(Parameters(seed=1, customers=20, products=20), [(MIXES["balanced"], 1)] * 1500)
    assert {action for plan in plans for action in plan.actions} == set(Action)
    assert all(len(plan.actions) == 1 for plan in plans[1:])


def test_a_size_is_kept_on_average() -> None:
    for name in ("balanced", "inserts", "churn"):
        plans = history(Parameters(), [(MIXES[name], 1000)] * 12)[3:]
        assert 850 < sum(map(len, plans)) / len(plans) < 1150, name


def test_popular_customers_order_more() -> None:
    def share_of_the_first(skew: float) -> float:
        plans = history(Parameters(skew=skew, customers=100), [(MIXES["inserts"], 3000)])
        orders = [each.changes() for each in plans[1].operations if each.table.name == "orders"]
        return sum(each["customer_id"] == 1 for each in orders) / len(orders)

    assert share_of_the_first(1.1) > 0.15
    assert share_of_the_first(0.0) < 0.05


def test_ranks_follow_their_weights() -> None:
    draw, zipf = Draw("ranks"), Zipf(1.0)
    ranks = [zipf.rank(draw, 4) for _ in range(8000)]
    assert set(ranks) == {0, 1, 2, 3}
    assert abs(ranks.count(0) / len(ranks) - 12 / 25) < 0.03


def test_an_interrupted_plan_is_not_built_upon(monkeypatch: pytest.MonkeyPatch) -> None:
    planner = Planner(Parameters())
    planner.opening()

    def interrupt() -> bool:
        raise KeyboardInterrupt

    monkeypatch.setitem(planner._actions.do, Action.PLACE_ORDER, interrupt)
    with pytest.raises(KeyboardInterrupt):
        planner.plan(MIXES["inserts"])
    with pytest.raises(StreamlabError, match="interrupted half-way"):
        planner.plan(MIXES["orders"])


@pytest.mark.parametrize(
    ("mix", "message"),
    [("nothing", "no mix named nothing"), ({"fly": 1}, "no action fly"), ({"place_order": 0}, "weights")],
)
def test_a_mix_that_cannot_be_is_refused(mix: str | dict[str, float], message: str) -> None:
    with pytest.raises(StreamlabError, match=message):
        Mix.of(mix)


@pytest.mark.parametrize(
    "wrong", [{"customers": 0}, {"skew": -1}, {"start": datetime(2026, 1, 1)}, {"tick": timedelta(0)}]
)
def test_parameters_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(StreamlabError):
        Parameters(**wrong)  # type: ignore[arg-type]


def test_an_operation_keeps_its_statement_across_processes() -> None:
    plan = Planner(Parameters()).opening()
    again = pickle.loads(pickle.dumps(plan))  # noqa: S301 - our own bytes
    assert again == plan
    assert again.operations[0].statement is plan.operations[0].statement


def test_a_picture_is_the_same_everywhere() -> None:
    assert photo("1/1").startswith("data:image/png;base64,iVBOR")
    assert photo("1/1") == photo("1/1") != photo("1/2")
    assert 3000 < len(photo("1/1")) < 3500
    assert Parameters().start.tzinfo is UTC
