"""Which candidate is which standing instruction."""

from rules.mining.matching import Known, match_known


def known(text: str, traces: range | tuple[int, ...], label: str = "Yes", *older: str) -> Known:
    return Known(label, (text, *older), frozenset(traces))


COPIES = "If the recipient keeps archival copies of returned documents, then label Yes."
STAFF = "If staff of the other party must not be hired or solicited, then label Yes."


def test_the_very_text_wins_over_shared_traces() -> None:
    standing = [known(COPIES, range(10)), known(STAFF, range(10, 20))]
    fresh = [known(STAFF, range(10)), known(COPIES, range(10, 20))]
    assert match_known(standing, fresh) == {0: 1, 1: 0}


def test_an_older_text_of_an_instruction_is_its_text_as_well() -> None:
    assert match_known([known("Edited by a person.", (), "Yes", COPIES)], [known(COPIES, ())]) == {0: 0}


def test_shared_traces_are_enough_and_another_label_is_never_the_same() -> None:
    standing = [known(COPIES, range(10))]
    assert match_known(standing, [known(STAFF, range(5, 15))]) == {0: 0}
    assert match_known(standing, [known(COPIES, range(10), "No")]) == {}


def test_a_growing_group_stays_the_same_rule() -> None:
    assert match_known([known(COPIES, range(10))], [known(STAFF, range(100))]) == {0: 0}


def test_without_shared_traces_the_words_must_be_nearly_the_same() -> None:
    nearly = "If the recipient keeps archival copies of the returned documents and files, then label Yes."
    standing = [known(COPIES, range(10))]
    assert match_known(standing, [known(nearly, range(50, 60))]) == {0: 0}
    assert match_known(standing, [known(STAFF, range(50, 60))]) == {}


def test_one_instruction_is_matched_once_and_to_the_better_half() -> None:
    standing = [known(COPIES, range(10))]
    fresh = [known(STAFF, range(5)), known(COPIES + " Also for backups.", range(5, 10))]
    assert match_known(standing, fresh) == {1: 0}


def test_nothing_standing_and_nothing_fresh() -> None:
    assert match_known([], [known(COPIES, range(3))]) == {}
    assert match_known([known(COPIES, range(3))], []) == {}
