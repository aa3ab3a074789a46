"""Comments: who writes what where, who is told, and what a person who still judges may read."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from pld_app.errors import InvalidInput, NotAllowed, WrongState
from pld_app.models import Notification, Role, User
from rules.mentions import mentions_in
from rules.models import Comment, CommentMention, CommentTurn, CommentVersion, Instruction, Revision
from rules.selectors.comments import CommentBox, CommentTab, comment_page, comments_of
from rules.selectors.review_filter import ReviewFilter, view_rows
from rules.selectors.review_tabs import Mark, Tab
from rules.services import comments as services
from tests import factories
from tests.governance.racing import racers, rounds
from tests.review.conftest import RULE, approve, edit, reject

type ClientOf = Callable[[User], Client]


def write(instruction: Instruction, author: User, body: str = "Is this still the law?", **more: Any) -> Comment:
    return services.comment_write(instruction_id=instruction.pk, author=author, body=body, **more)


def answer(thread: Comment, author: User, body: str = "It is.") -> Comment:
    return services.comment_answer(comment_id=thread.pk, author=author, body=body)


def read(instruction: Instruction, reader: User, *, figures_shown: bool = True) -> CommentBox:
    instruction = Instruction.objects.select_related("current_revision", "task").get(pk=instruction.pk)
    return comments_of(instruction, reader, figures_shown=figures_shown)


def url(name: str, instruction: Instruction, *more: int) -> str:
    return reverse(name, args=["nda", instruction.number, *more])


class TestWriting:
    def test_a_thread_is_written_answered_changed_resolved_and_opened_again(
        self, instruction: Instruction, ana: User, sam: User
    ) -> None:
        thread = write(instruction, ana, quote="thirty days")
        reply = answer(thread, sam)
        services.comment_change(comment_id=thread.pk, author=ana, body="Is it?", number=1)
        services.comment_resolve(comment_id=thread.pk, actor=sam)
        services.comment_reopen(comment_id=thread.pk, actor=ana)
        assert factories.audit_actions(thread) == [
            "comment.written",
            "comment.edited",
            "comment.resolved",
            "comment.reopened",
        ]
        assert factories.audit_actions(reply) == ["comment.written"]
        (one,) = read(instruction, ana).open
        assert (one.first.body, one.first.number, [said.body for said in one.replies]) == ("Is it?", 2, ["It is."])
        assert RULE[one.start : one.end] == "thirty days"
        # The words themselves are no part of the event, only what they hash to.
        assert "law" not in str(thread.versions.get(number=1).event.data)

    def test_words_are_found_at_their_place_or_refused(self, instruction: Instruction, ana: User) -> None:
        text = "may be may be"
        factories.text_row(instruction)
        two = factories.make_instruction(instruction.task, f"If {text}, then label Compliant.")
        with pytest.raises(InvalidInput, match="more than once"):
            write(two, ana, quote="may be")
        second = write(two, ana, quote="may be", start=10)
        assert (second.start, second.quote) == (10, "may be")
        with pytest.raises(InvalidInput, match="not in the rule"):
            write(two, ana, quote="must be")
        assert Comment.objects.count() == 1

    def test_a_quote_of_an_earlier_text_says_so(self, instruction: Instruction, ana: User, ben: User) -> None:
        write(instruction, ana, quote="thirty days")
        edit(instruction, ana, text="If copies may be kept for sixty days, then label Compliant.")
        (one,) = read(instruction, ana).open
        assert one.is_on_earlier_text
        assert one.start is None

    def test_who_may(self, instruction: Instruction, ana: User, sam: User, ada: User, abe: User) -> None:
        for person in (ana, sam, ada):
            write(instruction, person)
        with pytest.raises(NotAllowed):
            write(instruction, abe)
        thread = Comment.objects.first()
        assert thread
        with pytest.raises(NotAllowed, match="Only its writer"):
            services.comment_change(comment_id=thread.pk, author=sam, body="Not mine.", number=1)
        for empty in ("", " \r\n "):
            with pytest.raises(InvalidInput, match="Write something"):
                write(instruction, ana, empty)
        with pytest.raises(InvalidInput, match="too long"):
            write(instruction, ana, "x" * 4001)

    def test_a_resolved_thread_takes_no_answer_and_turns_once(self, instruction: Instruction, ana: User) -> None:
        thread = write(instruction, ana)
        services.comment_resolve(comment_id=thread.pk, actor=ana)
        with pytest.raises(WrongState, match="resolved meanwhile"):
            answer(thread, ana)
        with pytest.raises(WrongState, match="faster"):
            services.comment_resolve(comment_id=thread.pk, actor=ana)
        assert read(instruction, ana).open == []

    def test_a_change_on_an_older_version_is_refused(self, instruction: Instruction, ana: User) -> None:
        thread = write(instruction, ana)
        change = partial(services.comment_change, comment_id=thread.pk, author=ana)
        change(body="Second.", number=1)
        with pytest.raises(WrongState):
            change(body="Also second.", number=1)
        assert [one.body for one in thread.versions.all()] == ["Is this still the law?", "Second."]


class TestMentions:
    def test_the_named_are_told_once_and_the_writer_never(
        self, instruction: Instruction, ana: User, ben: User, sam: User
    ) -> None:
        thread = write(instruction, ana, "@ben. @BEN and @ana: see @finance")
        notes = Notification.objects.filter(kind="comment.mentioned")
        assert [note.user for note in notes] == [ben]
        assert notes[0].url == f"{url('instruction-comments', instruction)}#comment-{thread.pk}"
        services.comment_change(comment_id=thread.pk, author=ana, body="@ben @sam", number=1)
        assert sorted(note.user.username for note in notes.all()) == ["ben", "sam"]

    def test_an_answer_tells_who_wrote_in_the_thread(self, instruction: Instruction, ana: User, sam: User) -> None:
        thread = write(instruction, ana)
        answer(thread, sam)
        answer(thread, ana, "Thanks, @sam.")
        told = Notification.objects.order_by("pk").values_list("user__username", "kind")
        assert list(told) == [("ana", "comment.answered"), ("sam", "comment.mentioned")]

    def test_an_unknown_name_is_told_before_anything_is_kept(self, instruction: Instruction, ana: User) -> None:
        with pytest.raises(InvalidInput, match="Nobody is called @anna here"):
            write(instruction, ana, "Ask @anna")
        assert not Comment.objects.exists()

    @given(body=st.text(), names=st.sets(st.from_regex(r"[a-z0-9_]{1,6}", fullmatch=True), max_size=4))
    def test_every_name_found_stands_in_the_text(self, body: str, names: set[str]) -> None:
        people = {name: at for at, name in enumerate(sorted(names))}
        found = mentions_in(body, people, ["legal"])
        by_id = {at: name for name, at in people.items()}
        for name in (*(by_id[pk] for pk in found.user_ids), *found.pools, *(name for name, _near in found.unknown)):
            assert f"@{name}" in body.lower()

    @given(
        name=st.from_regex(r"[a-z0-9_]{1,8}", fullmatch=True),
        end=st.sampled_from(["", ".", "!", " and", "...", ")"]),
    )
    def test_a_known_name_is_found_before_any_ending(self, name: str, end: str) -> None:
        assert mentions_in(f"Ask @{name}{end}", {name: 7}, []).user_ids == (7,)
        assert mentions_in(f"a@{name}", {name: 7}, []).user_ids == ()


class TestWhatAJudgeReads:
    def test_others_words_open_with_the_figures(
        self, instruction: Instruction, ana: User, ben: User, client_of: ClientOf
    ) -> None:
        write(instruction, ben, "I would reject this.")
        write(instruction, ana, "Mine.")
        client = client_of(ana)
        page = client.get(url("instruction-detail", instruction)).content.decode()
        assert "I would reject this." not in page
        assert "Mine." in page
        opened = client.post(url("instruction-insight", instruction), headers={"HX-Request": "true"}).content.decode()
        assert "I would reject this." in opened
        assert "I would reject this." in client.get(url("instruction-comments", instruction)).content.decode()

    def test_a_blind_colleagues_words_wait_for_ones_own_judgement(self, ana: User, ben: User) -> None:
        task = factories.make_task(slug="blind", policy={"double_percent": 100})
        one = factories.make_instruction(task, RULE)
        reject(one, ana, reason="unclear")
        write(one, ana, "It says nothing. @ben")
        box = read(one, ben)
        assert (box.open, box.withheld, box.withheld_names_reader) == ([], 1, True)
        _page, (row,) = comment_page(task, CommentTab.NAMED, ben, None)
        assert row.is_closed
        approve(one, ben)
        assert [thread.first.body for thread in read(one, ben).open] == ["It says nothing. @ben"]

    def test_the_wording_of_an_evidence_first_card_is_in_no_comment(
        self, ana: User, ben: User, client_of: ClientOf
    ) -> None:
        task = factories.make_task(slug="nda", policy={"blind_first": True, "blind_percent": 100})
        one = factories.make_instruction(task, RULE)
        write(one, factories.make_user("lead", Role.ADMIN), quote="thirty days")
        for path in (url("instruction-detail", one), url("instruction-comments", one), "/tasks/nda/comments/"):
            assert "thirty days" not in client_of(ana).get(path, follow=True).content.decode()
        with pytest.raises(NotAllowed, match="Say first"):
            write(one, ana)

    def test_everybody_else_reads_all(
        self, instruction: Instruction, ana: User, abe: User, client_of: ClientOf
    ) -> None:
        write(instruction, ana, "For the record.")
        assert "For the record." in client_of(abe).get(url("instruction-detail", instruction)).content.decode()


class TestPages:
    def test_a_refusal_gives_back_what_was_typed(
        self, instruction: Instruction, ana: User, client_of: ClientOf
    ) -> None:
        for headers in ({}, {"HX-Request": "true"}):
            sent = {"body": "Ask @nobody-at-all", "quote": "thirty"}
            response = client_of(ana).post(url("comment-new", instruction), sent, headers=headers)
            assert response.status_code == 422
            assert "Nobody is called" in response.content.decode()
            assert "Ask @nobody-at-all" in response.content.decode()
            assert 'value="thirty"' in response.content.decode()

    def test_the_whole_by_plain_forms(self, instruction: Instruction, ana: User, client_of: ClientOf) -> None:
        client = client_of(ana)
        made = client.post(url("comment-new", instruction), {"body": "Look here.", "start": "", "quote": ""})
        thread = Comment.objects.get()
        assert made["Location"].endswith(f"#comment-{thread.pk}")
        client.post(url("comment-answer", instruction, thread.pk), {"body": "Seen."})
        client.post(url("comment-change", instruction, thread.pk), {"body": "Look there.", "number": "1"})
        client.post(url("comment-resolve", instruction, thread.pk))
        page = client.get(url("instruction-comments", instruction)).content.decode()
        for words in ("Look there.", "Seen.", "Resolved by Ana"):
            assert words in page
        client.post(url("comment-reopen", instruction, thread.pk))
        assert "Look there." in client.get("/tasks/nda/comments/").content.decode()

    def test_of_another_instruction_is_not_there(
        self, instruction: Instruction, ana: User, client_of: ClientOf
    ) -> None:
        thread = write(instruction, ana)
        other = factories.make_instruction(instruction.task)
        assert client_of(ana).post(url("comment-resolve", other, thread.pk)).status_code == 404

    def test_the_queue_finds_what_has_open_comments(self, instruction: Instruction, ana: User) -> None:
        factories.make_instruction(instruction.task)
        thread = write(instruction, ana)
        view = ReviewFilter(tab=Tab.ALL, mark=Mark.COMMENTED)
        assert [one.pk for one in view_rows(instruction.task, view, ana)] == [instruction.pk]
        services.comment_resolve(comment_id=thread.pk, actor=ana)
        assert not view_rows(instruction.task, view, ana).exists()

    @pytest.mark.parametrize("path", ["/tasks/nda/comments/", "/tasks/nda/review/1/comments/"])
    def test_as_many_queries_for_one_as_for_25(
        self, instruction: Instruction, ana: User, ben: User, client_of: ClientOf, path: str
    ) -> None:
        def asked() -> int:
            with CaptureQueriesContext(connection) as queries:
                assert client_of(ana).get(path).status_code == 200
            return len(queries)

        answer(write(instruction, ana, "First, @ben."), ben)
        client_of(ana).post(url("instruction-insight", instruction))
        asked()
        few = asked()
        for _number in range(24):
            answer(write(instruction, ana, "More, @ben."), ben)
        assert asked() == few


class TestTheDatabase:
    """Every path around the services: the ORM, SQL as the application's role, and two connections at once."""

    def test_a_comment_without_words_or_event_does_not_commit(self, instruction: Instruction, ana: User) -> None:
        revision = factories.text_row(instruction)
        connection.cursor().execute("SET CONSTRAINTS ALL IMMEDIATE")
        with pytest.raises(IntegrityError, match="a comment has words"), transaction.atomic():
            Comment.objects.create(instruction=instruction, revision=revision, author=ana)
        connection.cursor().execute("SET CONSTRAINTS ALL DEFERRED")
        thread = write(instruction, ana)
        event = thread.versions.get().event
        with pytest.raises(IntegrityError), transaction.atomic():
            CommentVersion.objects.create(comment=thread, number=2, author=ana, body="x", event=event)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"start": 0, "end": 5, "quote": "other"},
            {"start": 0, "end": 500, "quote": RULE},
            {"start": 3, "end": 3, "quote": "x"},
            {"quote": "copies"},
            {"is_resolved": True},
        ],
    )
    def test_a_comment_quotes_what_stands_there(
        self, instruction: Instruction, ana: User, wrong: dict[str, Any]
    ) -> None:
        with pytest.raises(IntegrityError), transaction.atomic():
            Comment.objects.create(
                instruction=instruction, revision=factories.text_row(instruction), author=ana, **wrong
            )

    def test_it_stands_on_a_text_and_in_a_thread_of_its_own_instruction(
        self, instruction: Instruction, ana: User, abe: User
    ) -> None:
        other = factories.make_instruction(instruction.task)
        here, there = factories.text_row(instruction), factories.text_row(other)
        thread = write(instruction, ana)
        reply = answer(thread, ana)
        rows: list[tuple[Instruction, Revision, User, Comment | None]] = [
            (instruction, there, ana, None),
            (other, there, ana, thread),
            (instruction, here, ana, reply),
            (instruction, here, abe, None),
        ]
        for row, revision, author, parent in rows:
            with pytest.raises(IntegrityError, match="pld:"), transaction.atomic():
                Comment.objects.create(instruction=row, revision=revision, author=author, parent=parent)

    def test_nobody_puts_words_in_anothers_mouth(self, instruction: Instruction, ana: User, ben: User) -> None:
        thread = write(instruction, ana)
        event = thread.versions.get().event
        for author, number in ((ben, 2), (ana, 1), (ana, 3)):
            with pytest.raises(IntegrityError), transaction.atomic():
                CommentVersion.objects.create(comment=thread, number=number, author=author, body="x", event=event)

    def test_nothing_is_changed_deleted_or_resolved_past_the_record(
        self, instruction: Instruction, ana: User, ben: User
    ) -> None:
        thread = write(instruction, ana, "Hm, @ben.", quote="copies")
        services.comment_resolve(comment_id=thread.pk, actor=ana)
        statements = [
            "UPDATE rules_commentversion SET body = 'other'",
            "DELETE FROM rules_commentversion",
            "TRUNCATE rules_commentversion CASCADE",
            "UPDATE rules_comment SET quote = 'rights'",
            "UPDATE rules_comment SET author_id = (SELECT id FROM pld_app_user WHERE username = 'ben')",
            "UPDATE rules_comment SET is_resolved = false",
            "DELETE FROM rules_comment",
            "UPDATE rules_commentmention SET user_id = (SELECT id FROM pld_app_user WHERE username = 'ana')",
            "DELETE FROM rules_commentmention",
            "UPDATE rules_commentturn SET is_resolved = false",
            "DELETE FROM rules_commentturn",
        ]
        connection.cursor().execute("SET CONSTRAINTS ALL IMMEDIATE")
        for statement in statements:
            with pytest.raises(Exception, match=r"pld:|append-only"), transaction.atomic():
                connection.cursor().execute(statement)

    @pytest.mark.django_db(transaction=True)
    def test_nobody_is_named_afterwards(self, instruction: Instruction, ana: User, ben: User) -> None:
        version = write(instruction, ana).versions.get()
        with pytest.raises(IntegrityError, match="named when it is written"):
            CommentMention.objects.create(version=version, user=ben)

    @pytest.mark.django_db(transaction=True)
    def test_an_answer_and_a_resolution_at_once(self, instruction: Instruction, ana: User, ben: User) -> None:
        """Whoever comes second is told; a resolved thread never gains an answer after its resolution."""
        with racers(3) as field:
            for _number in range(rounds(15)):
                thread = write(instruction, ana)
                said, done, again = field.race(
                    partial(answer, thread, ben),
                    partial(services.comment_resolve, comment_id=thread.pk, actor=ana),
                    partial(services.comment_resolve, comment_id=thread.pk, actor=ben),
                )
                assert [done, again].count(None) == 1
                turn = CommentTurn.objects.get(comment=thread)
                late = thread.replies.filter(versions__event__gt=turn.event_id)
                assert not late.exists()
                assert thread.replies.count() == (said is None)
