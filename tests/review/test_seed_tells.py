"""Nothing a reviewer is sent tells a check item from the rest: on a mined task, before and after each of their acts.

The check item stands beside the candidate it was made from: whatever page, list, count or message differs in more than
number and words is a tell.
"""

import re
from collections.abc import Callable, Iterable
from difflib import unified_diff
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import reverse

from pld_app.models import Role, User
from rules.models import (
    Instruction,
    InstructionStatus,
    MatchKind,
    MiningRun,
    NearDuplicate,
    RunMatch,
    RunState,
    Seed,
    SeedKind,
    SimilarRule,
    Task,
)
from rules.selectors.review_tabs import Tab
from rules.services.assignments import assignment_set
from rules.services.seed_twins import seeds_follow
from rules.services.seeds import seed_make
from rules.services.tags import batch_tag
from tests.factories import (
    approve_directly,
    make_evidence,
    make_instruction,
    make_policy,
    make_trace,
    make_user,
    text_row,
)
from tests.mining_runs.test_stages import filled_task, mined
from tests.review.conftest import approve, edit, reject

type ClientOf = Callable[[User], Client]
REWORDED = "If the recipient keeps whatever it likes for ninety days, then label Breach."


@pytest.fixture
def task(db: None) -> Task:
    """Mined for real; every candidate is drawn for double review, as a check item looks."""
    task = filled_task()
    # Three digits from here on: such a number stands on a page for nothing else.
    make_instruction(task, "If none of this applies, then label Unclear.", topic="zz", number=700)
    make_policy(task, double_percent=100, seed_percent=20)
    mined(task)
    return task


@pytest.fixture
def seed(task: Task, ada: User) -> Seed:
    for row in Instruction.objects.filter(task=task, number__gt=700).order_by("number"):
        for kind in (SeedKind.POLARITY, SeedKind.THRESHOLD, SeedKind.SCOPE):
            try:
                return seed_make(task=task, admin=ada, source_number=row.number, kind=kind)
            except Exception:  # noqa: BLE001, S112  # the next kind or candidate may lend itself
                continue
    raise AssertionError("no candidate lends itself to a check item")


def address(task: Task, name: str, row: Instruction | None = None, **query: str) -> str:
    args = [task.slug] if row is None else [task.slug, row.number]
    return reverse(name, args=args, query=query or None)


def masked(page: str, row: Instruction) -> str:
    """A page without what is the row's own: its number, its words, hashes, times and the marks of shared words."""
    # The generated traces differ in this number alone, which a check item may have altered.
    page = re.sub(r"variant \d+", "variant N", page)
    texts = {re.sub(r"variant \d+", "variant N", one.text) for one in row.revisions.all()}
    for text in sorted(texts, key=len, reverse=True):
        for words in (text, text.replace("'", "&#x27;")):
            page = page.replace(words, "TEXT")
    page = re.sub(r"</?mark>|</?(ins|del)[^>]*>", "", page)
    page = re.sub(r"menu-[0-9a-f]{8}|csrfmiddlewaretoken\" value=\"\w+|X-CSRFToken\": \"\w+", "", page)
    page = re.sub(r"[0-9a-f]{8,}", "HASH", page)
    # Versions and runs are no numbers of rows, though the two may be equal.
    value = r"(?<!name=\"version\" )(?<!name=\"base\" )value=\""
    before = rf"#|%23|(?<!/mining)/|instruction[ -]|nda-|(?:true|No\.)\">|{value}"
    page = re.sub(rf"(?i)({before}){row.number}(?!\d)", r"\1NUMBER", page)
    page = re.sub(r"\d{4}-\d\d-\d\d[T ][\d:.+]+|\d\d:\d\d", "TIME", page)
    return " ".join(re.sub(r">\s+<", ">\n<", page).split(" "))


def card(page: str, row: Instruction) -> str:
    """The card without its place in the queue, which is its own, and without the words of its neighbours."""
    found = re.search(r"<article.*</article>", page, flags=re.DOTALL)
    assert found
    similar = r"<section class=\"evidence evidence-similar\".*?</section>"
    page = re.sub(similar, "SIMILAR", found.group(0), flags=re.DOTALL)
    page = re.sub(r"rel=\"(prev|next)\".*?</a>|<span class=\"num\">\d+ of \d+</span>", "", page, flags=re.DOTALL)
    return masked(page, row)


def main(page: str, row: Instruction) -> str:
    found = re.search(r"<main.*</main>", page, flags=re.DOTALL)
    assert found, page[:300]
    return masked(found.group(0), row)


def seen_by(client: Client, task: Task, row: Instruction, *, tabs: Iterable[Tab] = Tab) -> dict[str, str]:
    """Every page of the product on which a reviewer meets one candidate, or a count it is part of."""
    runs = MiningRun.objects.filter(task=task)

    def get(path: str) -> str:
        response: Any = client.get(path, follow=True)
        assert response.status_code == 200, path
        return str(response.content.decode())

    pages = {
        "card": card(get(address(task, "instruction-detail", row, domain="all", tab="all")), row),
        "traces": main(get(address(task, "instruction-traces", row)), row),
        "opinions": main(get(address(task, "instruction-opinions", row)), row),
        "assignment": main(get(address(task, "assignment", row)), row),
        "home": main(get(reverse("home")), row),
        "overview": main(get(address(task, "task")), row),
        "quality": main(get(address(task, "review-quality")), row),
        "figures": masked(get(address(task, "review-quality-export")), row),
        "session": main(get(address(task, "review-session")), row),
        "conflicts": str("seed" in get(address(task, "conflict-list")).lower()),
        "inbox": main(get(reverse("inbox")), row),
    }
    for tab in tabs:
        found = main(get(address(task, "review-queue", text=f"#{row.number}", tab=tab.value, domain="all")), row)
        pages[f"queue {tab.value}"] = found
    # One page counts for every tab.
    whole = get(address(task, "review-queue", domain="all"))
    pages["counts"] = "".join(re.findall(r"<progress.*?</progress>|class=\"count\">[^<]*", whole))
    for run in runs:
        for kind in MatchKind:
            path = f"{reverse('mining-changes', args=[task.slug, run.pk])}?kind={kind}"
            rows = re.findall(rf"<tr>\s*<th scope=\"row\"><a[^>]*>#{row.number}<.*?</tr>", get(path), flags=re.DOTALL)
            pages[f"run {run.number} {kind}"] = masked("".join(rows), row)
    return pages


def same(ones: dict[str, str], others: dict[str, str]) -> None:
    assert ones.keys() == others.keys()
    for name, one in ones.items():
        lines = list(
            unified_diff(one.split("\n"), others[name].split("\n"), "candidate", "check item", n=0, lineterm="")
        )
        assert not lines, f"{name} tells them apart:\n" + "\n".join(lines[:20])
        # A run's own parameter of that name, not ours; on pages about all of the review the word may stand.
        if name.partition(" ")[0] in {"card", "traces", "opinions", "assignment", "queue", "run"}:
            assert "seed" not in one.lower().replace("parameters · seed", "")


def test_before_anything_is_done(task: Task, seed: Seed, ana: User, client_of: ClientOf) -> None:
    client = client_of(ana)
    pages = [seen_by(client, task, row) for row in (seed.twin, seed.instruction)]
    same(*pages)
    assert "TEXT" in pages[0]["card"]
    assert "TEXT" in pages[0]["run 1 new"]
    assert "NUMBER" in pages[0]["queue all"]


# Where an act can move a card to or from.
MOVED = (Tab.OPEN, Tab.ALL)
ACTS: dict[str, dict[str, str]] = {
    "instruction-approve": {},
    "instruction-reject": {"reason": "unclear"},
    "instruction-defer": {},
    "instruction-send-back": {"reason": "scope", "note": "As agreed."},
    "instruction-edit": {"note": "Clearer."},
}


@pytest.mark.parametrize("name", ACTS)
def test_after_each_act_and_after_taking_it_back(
    task: Task, seed: Seed, ana: User, ben: User, client_of: ClientOf, name: str
) -> None:
    """What it says, where it leads, every page afterwards for the same person and for a colleague, and the undoing."""
    first = Instruction.objects.get(task=task, number=700)
    found: list[list[dict[str, str]]] = []
    for row in (seed.twin, seed.instruction):
        with transaction.atomic():
            client, other = client_of(ana), client_of(ben)
            sent = {"version": str(row.version), "text": f"{text_row(row).text} So it is."} | ACTS[name]
            said: Any = client.post(address(task, name, row, tab="all", domain="all"), sent)
            assert said.status_code == 302
            landed: Any = client.get(address(task, "instruction-detail", first))
            message = re.search(r"data-announce=\"([^\"]*)\"", landed.content.decode())
            assert message
            pages = [{"said": masked(re.sub(r"\d+ left", "", message[1]), row)}, seen_by(client, task, row, tabs=MOVED)]
            if name != "instruction-edit":
                pages.append(seen_by(other, task, row, tabs=MOVED))
            row.refresh_from_db()
            undone: Any = client.post(address(task, "instruction-undo", row), {"version": row.version}, follow=True)
            assert undone.status_code == 200
            pages.append(seen_by(client, task, row, tabs=MOVED))
            found.append(pages)
            transaction.set_rollback(True)
    for one, other_one in zip(*found, strict=True):
        same(one, other_one)


def test_an_edited_one_is_its_authors_alone(task: Task, seed: Seed, ana: User, ben: User, client_of: ClientOf) -> None:
    """A colleague's approval settles any other edit: it cannot settle this one, so no list offers it to them."""
    edit(seed.instruction, ana, text=REWORDED)
    edit(seed.twin, ana, text=f"{REWORDED} Indeed.")
    for person, listed in ((ana, True), (ben, False)):
        tab = Tab.MINE if person == ana else Tab.SECOND
        page = client_of(person).get(address(task, "review-queue", tab=tab.value, domain="all")).content.decode()
        assert (f">{seed.instruction.number}</th>" in page) is listed
        assert f">{seed.twin.number}</th>" in page


def test_own_figures_stand_still_until_the_session_is_over(
    task: Task, seed: Seed, ana: User, client_of: ClientOf
) -> None:
    """A count of answers that rises with one card, or of judgements that does not, would name it."""
    client = client_of(ana)
    before = client.get(address(task, "review-quality")).content.decode()
    approve(seed.instruction, ana)
    approve(seed.twin, ana)
    csv_file = client.get(address(task, "review-quality-export")).content.decode()
    assert ",0,0,0,0,," in csv_file
    figures = re.compile(r"<dl class=\"facts quality-facts\">.*?</dl>", flags=re.DOTALL)
    during = client.get(address(task, "review-quality")).content.decode()
    assert figures.findall(during) == figures.findall(before)
    client.post(address(task, "review-session"))
    after = client.get(address(task, "review-quality")).content.decode()
    assert figures.findall(after) != figures.findall(before)


def test_neighbours_are_found_but_never_its_source(task: Task, seed: Seed) -> None:
    assert SimilarRule.objects.filter(instruction=seed.instruction).exists()
    pair = {seed.source_id, seed.instruction_id}
    assert not SimilarRule.objects.filter(instruction__in=pair, other__in=pair).exists()
    families = dict(NearDuplicate.objects.filter(instruction__in=pair).values_list("instruction", "family"))
    assert len(set(families.values())) == len(families)


def test_a_contradicting_one_stands_on_the_evidence_of_its_label(task: Task, ada: User, ben: User) -> None:
    source = make_instruction(task, "If copies are burnt, then label Compliant.", number=900, topic="ashes", support=7)
    sibling = make_instruction(
        task, "If copies are sold, then label Breach.", label="Breach", number=901, topic="ashes", support=4
    )
    for row in (source, sibling):
        make_evidence(row, make_trace(task, label=row.label))
    make_policy(task, double_percent=0)
    approve_directly(source, ben)
    made = seed_make(task=task, admin=ada, source_number=source.number, kind=SeedKind.CONTRADICTING)
    assert text_row(made.instruction).text == "If copies are burnt, then label Breach."
    assert (made.instruction.label, made.twin, made.instruction.support) == ("Breach", sibling, 4)
    supporting = made.instruction.evidence.filter(role="supporting").select_related("trace")
    assert [one.trace.label for one in supporting] == ["Breach"]


def test_who_has_work_assigned_keeps_the_check_item_as_well(task: Task, ana: User, ada: User) -> None:
    for row in Instruction.objects.filter(task=task):
        assignment_set(instruction_id=row.pk, by=ada, person=ana)
        batch_tag(task=task, by=ana, shown={row.number: row.version}, name="to discuss")
    for row in Instruction.objects.filter(task=task).order_by("number"):
        try:
            made = seed_make(task=task, admin=ada, source_number=row.number, kind=SeedKind.POLARITY)
        except Exception:  # noqa: BLE001, S112  # the next candidate may lend itself
            continue
        assert made.instruction.assignment.person == ana
        assert [tag.name for tag in made.instruction.tags.all()] == ["to discuss"]
        return
    raise AssertionError("no candidate lends itself to a check item")


class TestMiningAgain:
    def test_a_second_run_lists_and_moves_it_like_its_twin(
        self, task: Task, seed: Seed, ana: User, client_of: ClientOf
    ) -> None:
        central = task.traces.get(external_id=seed.twin.provenance["cited"][0])
        for _number in range(3):
            make_trace(task, label=central.label, instruction=central.instruction, metadata=central.metadata)
        mined(task)
        seed.instruction.refresh_from_db()
        twin = Instruction.objects.get(pk=seed.twin.pk)
        assert twin.run_id != seed.source.run_id or seed.instruction.run_id == twin.run_id
        for name in ("run_id", "cluster_id", "topic", "support", "contradictions", "provenance", "version", "status"):
            assert getattr(seed.instruction, name) == getattr(twin, name), name
        client = client_of(ana)
        same(*(seen_by(client, task, row) for row in (twin, seed.instruction)))

    @pytest.mark.parametrize("touched", [False, True])
    def test_it_goes_with_a_candidate_that_nobody_had_touched(
        self, task: Task, seed: Seed, ana: User, touched: bool
    ) -> None:
        if touched:
            reject(seed.instruction, ana, reason="unclear")
        run = MiningRun.objects.create(task=task, number=9, state=RunState.SUCCEEDED)
        twin = seed.twin
        twin.status, twin.version = InstructionStatus.SUPERSEDED, twin.version + 1
        twin.save(update_fields=["status", "version"])
        seeds_follow(run)
        seed.instruction.refresh_from_db()
        assert (seed.instruction.status == "superseded") is not touched
        assert RunMatch.objects.filter(run=run, instruction=seed.instruction, kind=MatchKind.LOST).exists() is touched

    def test_a_new_wording_of_its_twin_is_not_proposed_for_it(self, task: Task, seed: Seed) -> None:
        run = MiningRun.objects.create(task=task, number=9, state=RunState.SUCCEEDED)
        RunMatch.objects.create(
            run=run, instruction=seed.twin, kind=MatchKind.REWORDED, proposed_text="Other words.", traces_after=4
        )
        seeds_follow(run)
        made = RunMatch.objects.get(run=run, instruction=seed.instruction)
        assert (made.kind, made.proposed_text) == (MatchKind.UNCHANGED, "")


def test_signatories_cannot_count_them_either(task: Task, seed: Seed, sam: User, client_of: ClientOf) -> None:
    client = client_of(sam)
    for path in (address(task, "review-queue", text=f"#{seed.instruction.number}", tab="all", domain="all"),):
        assert "0 of 1 decided" in client.get(path).content.decode()
    assert make_user("x", Role.SIGNATORY).role == sam.role
    assert text_row(seed.instruction).text not in client.get(address(task, "task")).content.decode()
