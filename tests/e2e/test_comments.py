"""Two people talk about a rule: marked words, a name, the inbox, an answer, and the thread settled."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from rules.models import Comment, Task
from tests.e2e.conftest import Person
from tests.e2e.scenes import review_of, reviewers

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def task(db: None) -> Task:
    reviewers()
    return review_of(2)


def mark_words(page: Page, start: int, end: int) -> None:
    """As a person does with the mouse, in the text of the rule."""
    page.evaluate(
        """([start, end]) => {
          const text = document.querySelector("[data-rule-text]").firstChild;
          const range = document.createRange();
          range.setStart(text, start);
          range.setEnd(text, end);
          document.getSelection().removeAllRanges();
          document.getSelection().addRange(range);
        }""",
        [start, end],
    )


def test_a_thread_between_two(task: Task, person: Callable[..., Person]) -> None:
    lena = person("lena").open(f"/tasks/{task.slug}/review/1/")
    lena.keyboard.press("c")
    box = lena.locator("#comments")
    mark_words(lena, 3, 9)
    quoted = lena.evaluate("document.getSelection().toString()").strip()
    expect(box.get_by_label("On these words of the rule")).to_have_value(quoted)
    box.get_by_label("New comment").fill("Which ones, @finn?")
    lena.keyboard.press("Control+Enter")
    expect(box.locator(".remark-body")).to_have_text("Which ones, @finn?")
    assert Comment.objects.get().quote == quoted

    finn = person("finn").open("/inbox/")
    finn.get_by_role("button", name="You were named in a comment").click()
    expect(finn.locator("#comments")).to_contain_text("You are named there.")
    finn.get_by_role("link", name="To the card").click()
    finn.get_by_role("button", name="Open the figures").click()
    expect(finn.locator("#comments")).to_contain_text("1 open")
    finn.keyboard.press("c")
    finn.get_by_text("Answer", exact=True).first.click()
    finn.get_by_label("Answer to Lena").fill("Those of the annex.")
    finn.get_by_role("button", name="Answer", exact=True).click()
    expect(finn.locator(".thread-answers")).to_contain_text("Those of the annex.")
    finn.get_by_role("button", name="Resolve").click()
    expect(finn.locator("#comments")).to_contain_text("Resolved by Finn")
    finn.goto(f"{finn.url.split('/tasks/')[0]}/tasks/{task.slug}/comments/?tab=resolved")
    expect(finn.get_by_role("main")).to_contain_text("Which ones, @finn?")
