from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ti_pipeline.choices.files import default_url, gather, read_exported
from ti_pipeline.choices.store import Answer, Choice, Store
from ti_pipeline.errors import ParamsError
from ti_pipeline.workspace import Workspace


def choice(ticket: str, person: str = "a", picture: str = "0" * 16, flag: str = "pick", stars: int = 0) -> Choice:
    return Choice("fox", picture, person, person, flag, stars, "2026-01-01", ticket)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"sqlite:///{tmp_path / 'made' / 'choices.sqlite'}")


def test_the_last_decision_of_each_person_holds(store: Store):
    store.keep([choice("1"), choice("2", person="b", flag="reject")])
    store.keep([choice("3", flag="", stars=4)])
    assert [(c.person, c.flag, c.stars) for c in store.standing()] == [("b", "reject", 0), ("a", "", 4)]
    store.keep([choice("4", flag="")])
    assert [c.person for c in store.standing()] == ["b"]
    assert [c.ticket for c in store.news(2)] == ["3", "4"]


def test_a_decision_sent_twice_is_kept_once(store: Store):
    assert store.keep([choice("1"), choice("1")]).revision == 1
    assert store.keep([choice("1"), choice("2")]).revision == 2
    assert len(store.news()) == 2


def test_many_writers_at_once_lose_nothing_and_revisions_have_no_gap(store: Store):
    def write(person: str) -> None:
        for n in range(25):
            store.keep([choice(f"{person}-{n}", person, f"{n:016x}")])

    writers = [threading.Thread(target=write, args=(person,)) for person in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [c.revision for c in store.news()] == list(range(1, 101)) and len(store.standing()) == 100


def test_servers_that_start_together_on_a_fresh_store_all_start(tmp_path: Path):
    for n in range(5):
        together, keys = threading.Barrier(4), []

        def start(url: str, together: threading.Barrier = together, keys: list = keys) -> None:
            together.wait()
            store = Store(url)
            keys.append(store.key())
            store.close()

        starts = [threading.Thread(target=start, args=(f"sqlite:///{tmp_path / f'{n}.sqlite'}",)) for _ in range(4)]
        for one in starts:
            one.start()
        for one in starts:
            one.join()
        assert len(keys) == 4 and len(set(keys)) == 1 and len(keys[0]) == 32


def test_a_store_of_before_there_were_keys_is_taken_on(tmp_path: Path):
    store = Store(f"sqlite:///{tmp_path / 'choices.sqlite'}")
    store.keep([choice("1")])
    store.close()
    with closing(sqlite3.connect(tmp_path / "choices.sqlite")) as before:
        before.execute("DROP TABLE setting")
    store = Store(f"sqlite:///{tmp_path / 'choices.sqlite'}")
    assert store.key() == store.key() and [c.ticket for c in store.news()] == ["1"]


def test_a_decision_takes_back_only_the_last_one(store: Store):
    store.keep([choice("1"), choice("2", person="b")])
    kept = store.keep([choice("3", stars=1), replace(choice("4", flag=""), undoes="3"), replace(choice("5"), undoes="3")])
    assert (kept.revision, kept.refused, [c.ticket for c in kept.newer]) == (4, ("5",), ["4"])
    assert store.keep([replace(choice("6", person="b", flag=""), undoes="1")]).refused == ("6",)  # another's
    assert store.keep([replace(choice("7", person="c"), undoes="unknown")]).refused == ()  # there is none of theirs


def test_the_last_answer_of_each_person_holds(store: Store):
    store.keep_answers(
        [Answer("q", "a", ("x", "y"), "t", "1"), Answer("q", "a", ("y", "x"), "t", "2"), Answer("q", "b", ("x", "y"), "t", "3")]
    )
    assert [answer.places for answer in store.answers()] == [("y", "x"), ("x", "y")]


def test_a_workspace_without_choices_and_a_foreign_file_are_told_in_words(tmp_path: Path):
    with pytest.raises(ParamsError, match="holds no choices yet"):
        gather(Workspace.at(tmp_path, "concepts"), None)
    (tmp_path / "a.json").write_text('{"format": "another"}')
    with pytest.raises(ParamsError, match="not a file of choices.*format"):
        read_exported(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["plain", "what?", "a#b", "50%20", "a b"])
def test_the_workspaces_own_database_lies_in_it_whatever_it_is_called(name, tmp_path) -> None:
    place = Workspace.at(tmp_path / name, "concepts")
    Store(default_url(place)).close()
    assert (tmp_path / name / "choices" / "choices.sqlite").is_file() and [path.name for path in tmp_path.iterdir()] == [name]
    assert gather(place, None) == ([], [])
