"""What a store believes, in which order soever it hears things."""

import pytest

from cabildo_operator.kube.objects import ObjectMeta, Pod, PodSpec
from cabildo_operator.kube.store import ObjectKey, Store


def pod(name: str, *, uid: str = "u", version: int = 1, owner: str = "o", node: str = "") -> Pod:
    return Pod(
        metadata=ObjectMeta(
            name=name,
            namespace="ns",
            uid=uid,
            resource_version=str(version),
            labels={"owner": owner},
        ),
        spec=PodSpec(node_name=node),
    )


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def store(clock: list[float]) -> Store[Pod]:
    return Store(
        indexes={
            "owner": lambda pod: pod.metadata.labels.get("owner"),
            "node": lambda pod: pod.spec.node_name or None,
        },
        departed_for_s=300.0,
        clock=lambda: clock[0],
    )


def test_finds_objects_by_name_and_by_each_index(store: Store[Pod]) -> None:
    store.upsert(pod("b", node="n1"))
    store.upsert(pod("a", node="n2"))
    store.upsert(pod("c", owner="other", node="n1"))
    assert store.get(("ns", "a")) == pod("a", node="n2")
    assert [p.metadata.name for p in store.by_index("o")] == ["a", "b"]
    assert [p.metadata.name for p in store.by_index("n1", index="node")] == ["b", "c"]
    assert store.by_index("nobody") == ()
    assert len(store) == 3
    assert {p.metadata.name for p in store} == {"a", "b", "c"}


def test_moves_an_object_between_index_values(store: Store[Pod]) -> None:
    store.upsert(pod("a"))
    before = store.upsert(pod("a", version=2, node="n1"))
    assert before == pod("a")
    assert store.by_index("n1", index="node") == (pod("a", version=2, node="n1"),)
    store.upsert(pod("a", version=3, node="n2"))
    assert store.by_index("n1", index="node") == ()


def test_an_older_version_never_replaces_a_newer_one(store: Store[Pod]) -> None:
    store.upsert(pod("a", version=7, node="n1"))
    store.upsert(pod("a", version=5))
    assert store.get(("ns", "a")) == pod("a", version=7, node="n1")


def test_a_late_event_of_a_deleted_object_does_not_hide_its_successor(store: Store[Pod]) -> None:
    store.upsert(pod("a", uid="first", version=5))
    store.upsert(pod("a", uid="second", version=9))
    store.upsert(pod("a", uid="first", version=7))
    store.delete(pod("a", uid="first", version=8))
    found = store.get(("ns", "a"))
    assert found is not None
    assert found.metadata.uid == "second"


def test_remembers_the_answer_to_an_own_write(store: Store[Pod]) -> None:
    store.remember(pod("a", version=4))
    assert store.get(("ns", "a")) is not None


@pytest.mark.parametrize("news", ["event", "bookmark", "list"])
def test_an_answer_that_the_watch_has_passed_does_not_bring_an_object_back(
    store: Store[Pod], news: str
) -> None:
    if news == "event":
        store.upsert(pod("a", version=4))
        store.delete(pod("a", version=6))
    elif news == "bookmark":
        store.saw_version("6")
    else:
        store.replace_all([], resource_version="6")
    store.remember(pod("a", version=4))
    assert store.get(("ns", "a")) is None


def test_a_list_reports_what_changed_and_drops_what_is_gone(store: Store[Pod]) -> None:
    store.upsert(pod("kept", version=1))
    store.upsert(pod("changed", version=2))
    store.upsert(pod("gone", version=3))
    changes = store.replace_all(
        [pod("kept", version=1), pod("changed", version=5), pod("new", version=6)],
        resource_version="9",
    )
    assert [(b and b.metadata.name, a and a.metadata.name) for b, a in changes] == [
        ("changed", "changed"),
        (None, "new"),
        ("gone", None),
    ]
    assert store.get(("ns", "gone")) is None


def test_a_list_older_than_an_own_write_does_not_forget_it(store: Store[Pod]) -> None:
    store.remember(pod("mine", version=8))
    assert store.replace_all([], resource_version="5") == []
    assert store.get(("ns", "mine")) is not None


def test_removing_with_a_uid_removes_that_very_object_only(store: Store[Pod]) -> None:
    store.upsert(pod("a", uid="new"))
    assert store.remove(("ns", "a"), uid="old") is None
    assert store.remove(ObjectKey("ns", "a"), uid="new") is not None
    assert store.remove(("ns", "a")) is None
    assert store.by_index("o") == ()


def test_the_last_state_of_a_departed_object_is_kept_for_a_while(
    store: Store[Pod], clock: list[float]
) -> None:
    store.upsert(pod("a", version=1))
    store.delete(pod("a", version=2, node="last"))
    store.upsert(pod("b", uid="v", version=3))
    store.replace_all([], resource_version="9")
    assert [p.spec.node_name for p in store.departed("o")] == ["last", ""]
    assert [p.metadata.name for p in store.departed("last", index="node")] == ["a"]
    clock[0] = 301.0
    assert store.departed("o") == ()


def test_departed_objects_are_bounded(store: Store[Pod], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cabildo_operator.kube.store.MAX_DEPARTED", 3)
    for number in range(5):
        store.delete(pod(f"p{number}", uid=f"u{number}"))
    assert [p.metadata.name for p in store.departed("o")] == ["p2", "p3", "p4"]


def test_a_store_without_that_wish_keeps_nothing_departed() -> None:
    store: Store[Pod] = Store(indexes={"owner": lambda pod: "o"})
    store.delete(pod("a"))
    assert store.departed("o") == ()
