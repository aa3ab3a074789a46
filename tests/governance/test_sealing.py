"""Sealing: nothing committed is skipped, nothing is sealed twice, and the tree is that of RFC 6962."""

import random
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from pytest_django import Settings

from pld_app.audit import audit_record
from pld_app.models import AuditAlarm, AuditEvent, AuditKey, Checkpoint, Role, SealedLeaf, SealedNode, User
from pld_app.transparency import merkle
from pld_app.transparency.keys import keyring, signer_load
from pld_app.transparency.locks import SealerBusy, sealer_lock
from pld_app.transparency.note import checkpoint_parse
from pld_app.transparency.sealing import Blocked, alarm_raise, seal
from pld_app.transparency.tree import StoredTree
from tests.factories import make_user
from tests.governance import rfc6962
from tests.governance.sealing import ORIGIN, Log, all_sealed, at_once, events_make


def test_a_checkpoint_is_the_signed_root_of_all_events(log: Log, ada: User) -> None:
    events_make(ada, 20)
    done = log.seal()
    leaves = [bytes(leaf) for leaf in AuditEvent.objects.order_by("pk").values_list("leaf", flat=True)]
    checkpoint = Checkpoint.objects.get()
    assert (done.sealed.added, done.sealed.size, done.is_current) == (len(leaves), len(leaves), True)
    assert bytes(checkpoint.root) == rfc6962.mth(leaves)
    parsed = checkpoint_parse(checkpoint.note)
    assert (parsed.origin, parsed.size, parsed.root) == (ORIGIN, len(leaves), bytes(checkpoint.root))
    assert keyring().signer(parsed).key_id == AuditKey.objects.get().key_id
    assert log.newest_copy().read_text() == checkpoint.note
    assert all_sealed()


def test_a_round_without_news_signs_nothing(log: Log, ada: User) -> None:
    events_make(ada, 3)
    log.seal()
    assert log.seal().sealed.added == 0
    assert Checkpoint.objects.count() == 1


def test_every_stored_proof_holds_across_rounds(log: Log, ada: User) -> None:
    """More than one tile of 256 leaves, sealed in uneven steps."""
    for step in (1, 5, 260, 47, 300):
        events_make(ada, step)
        log.seal()
    tree, leaves = (
        StoredTree(),
        [bytes(one) for one in AuditEvent.objects.order_by("pk").values_list("leaf", flat=True)],
    )
    sizes = list(Checkpoint.objects.values_list("size", "root"))
    assert SealedNode.objects.filter(level=8).count() == len(leaves) // 256 == 2
    for (old, old_root), (new, new_root) in pairwise(sizes):
        assert tree.root(new) == bytes(new_root)
        assert merkle.extends(old, bytes(old_root), new, bytes(new_root), tree.consistency(old, new))
    size, root = sizes[-1]
    for index in random.Random(5).sample(range(size), 40):
        path = tree.inclusion(index, size)
        assert merkle.includes(merkle.leaf_hash(leaves[index]), index, size, path, bytes(root))
        assert rfc6962.verify_inclusion(leaves[index], index, size, path, bytes(root))


def test_sealing_a_thousand_events_takes_milliseconds(log: Log, ada: User) -> None:
    events_make(ada, 1000)
    signer, started = signer_load(), time.perf_counter()
    assert seal(signer).added == 1002  # the events of the key and the account too
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    "attack",
    [
        lambda leaf: SealedLeaf.objects.create(index=leaf.index + 1, event_id=leaf.event_id + 10**6, leaf_hash=b"x"),
        lambda leaf: SealedLeaf.objects.create(index=50, event=AuditEvent.objects.latest("pk"), leaf_hash=b"x"),
        lambda leaf: SealedLeaf.objects.create(
            index=leaf.index + 1, event=AuditEvent.objects.latest("pk"), leaf_hash=b"x" * 32
        ),
        lambda leaf: SealedLeaf.objects.filter(pk=leaf.pk).update(leaf_hash=b"x" * 32),
        lambda leaf: leaf.delete(),
        lambda leaf: Checkpoint.objects.create(
            size=1, root=b"x" * 32, frontier=b"x" * 32, note="", key=AuditKey.objects.get()
        ),
        lambda leaf: Checkpoint.objects.update(root=b"x" * 32),
        lambda leaf: AuditKey.objects.update(public_key=b"x" * 32),
        lambda leaf: SealedNode.objects.bulk_create([SealedNode(level=8, index=0, hash=b"")]) and leaf.delete(),
    ],
)
def test_the_seal_is_not_written_out_of_order(attack: Callable[[SealedLeaf], Any], log: Log, ada: User) -> None:
    events_make(ada, 4)
    log.seal()
    events_make(ada, 1)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    with pytest.raises(DatabaseError, match=r"pld: |append-only|violates"), transaction.atomic():
        attack(SealedLeaf.objects.latest("index"))


def test_an_alarm_stops_sealing_until_it_is_cleared(log: Log, ada: User) -> None:
    events_make(ada, 2)
    alarm_raise("the copies differ")
    alarm_raise("the copies differ")
    assert AuditAlarm.objects.count() == 1
    with pytest.raises(Blocked, match="differ"):
        log.seal()
    AuditAlarm.objects.create(state=AuditAlarm.State.CLEARED, detail="a restore that was meant", actor=ada)
    assert log.seal().sealed.size == 4


@pytest.mark.django_db(transaction=True)
class TestManyWriters:
    @pytest.fixture
    def log(self, transactional_db: None, tmp_path: Path, settings: Settings) -> Log:
        return Log(tmp_path, settings)

    def test_six_writers_with_random_delays_and_nothing_is_skipped(self, log: Log) -> None:
        """Test 34: twenty runs; the sealer works all the while, and whatever committed is sealed once."""
        ada, chance, signer = make_user("ada", Role.ADMIN), random.Random(34), signer_load()
        for run in range(20):
            delays = [[chance.random() * 0.004 for _ in range(6)] for _writer in range(6)]
            over = threading.Event()

            def write(mine: list[float], run: int = run) -> None:
                for number, delay in enumerate(mine):
                    with transaction.atomic():
                        audit_record("thing.done", actor=ada, subject=ada, task_slug=f"t{int(delay * 1000)}")
                        time.sleep(delay)
                        transaction.set_rollback(number == run % 6)

            def keep_sealing(over: threading.Event = over) -> None:
                while not over.is_set():
                    seal(signer)

            def write_all(delays: list[list[float]] = delays, over: threading.Event = over) -> None:
                try:
                    at_once([lambda mine=mine: write(mine) for mine in delays])  # type: ignore[misc]
                finally:
                    over.set()

            at_once([write_all, keep_sealing])
        seal(signer)
        assert AuditEvent.objects.filter(action="thing.done").count() == 20 * 6 * 5
        assert all_sealed()
        assert Checkpoint.objects.count() > 20

    def test_a_writer_in_the_way_delays_the_seal_and_not_the_other_writers(self, log: Log) -> None:
        ada = make_user("ada", Role.ADMIN)
        written, finish = threading.Event(), threading.Event()
        waits: list[float] = []

        def slow() -> None:
            with transaction.atomic():
                audit_record("thing.slow", actor=ada, subject=ada)
                written.set()
                finish.wait(20)

        def other() -> None:
            written.wait(20)
            while not finish.is_set():
                started = time.monotonic()
                with transaction.atomic():
                    audit_record("thing.done", actor=ada, subject=ada, task_slug="other")
                waits.append(time.monotonic() - started)

        def sealer() -> None:
            written.wait(20)
            assert [seal(signer_load()).is_held_up for _ in range(3)] == [True] * 3
            finish.set()

        at_once([slow, other, sealer])
        assert max(waits) < 1, "a writer waits for the sealer's try at most, a quarter of a second"
        assert seal(signer_load()).added > 3
        assert all_sealed()

    def test_only_one_seals(self, log: Log) -> None:
        held, finish = threading.Event(), threading.Event()

        def hold() -> None:
            with sealer_lock():
                held.set()
                finish.wait(20)

        def second() -> None:
            held.wait(20)
            with pytest.raises(SealerBusy):
                log.seal()
            finish.set()

        at_once([hold, second])
        assert log.seal().sealed.size == 1
