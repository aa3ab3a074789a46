"""Signed notes: the published example verifies, ours survive a round trip, and no altered one does."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from pld_app.transparency import note

# The example of c2sp.org/signed-note.
VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = (
    "This is an example message.\n\n"
    "\u2014 example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
VERIFIER = note.Verifier("log.example/audit", KEY.public_key().public_bytes_raw())


def signed(size: int = 7, root: bytes = b"r" * 32) -> str:
    return note.note_sign(note.checkpoint_text("log.example/audit", size, root), "log.example/audit", KEY)


def accepted(text: str) -> bool:
    try:
        return note.signer_of(note.checkpoint_parse(text), [VERIFIER]) is not None
    except note.NoteError:
        return False


def test_the_published_example_verifies() -> None:
    verifier = note.Verifier.from_vkey(VKEY)
    text, (signature,) = note.note_parse(EXAMPLE)
    assert text == "This is an example message.\n"
    assert (signature.name, signature.key_id) == (verifier.name, verifier.key_id) == ("example.com/foo", "530d903a")
    assert verifier.accepts(signature.signature, text.encode())
    assert verifier.vkey == VKEY
    assert not verifier.accepts(signature.signature, b"This is another message.\n")


@given(st.integers(0, 10**17), st.binary(min_size=32, max_size=32))
def test_a_checkpoint_comes_back_as_it_was(size: int, root: bytes) -> None:
    parsed = note.checkpoint_parse(signed(size, root))
    assert (parsed.origin, parsed.size, parsed.root) == ("log.example/audit", size, root)
    assert parsed.signed_by(VERIFIER)


def test_no_byte_of_a_checkpoint_can_be_changed() -> None:
    good = signed().encode()
    assert accepted(good.decode())
    for place in range(len(good)):
        for bit in range(8):
            changed = bytearray(good)
            changed[place] ^= 1 << bit
            assert not accepted(bytes(changed).decode(errors="replace")), (place, bit)
    for place in range(len(good)):
        assert not accepted((good[:place] + good[place + 1 :]).decode(errors="replace"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "only text\n",
        "a\n1\nzz\n\n\u2014 a zz\n",
        signed().replace("\n7\n", "\n07\n"),
        signed().replace("\n7\n", "\n\u0667\n"),
        signed().replace("\u2014", "-"),
        signed()[:-1],
        signed() + "x" * note.MAX_BYTES,
        signed() + "\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    assert not accepted(text)


def test_further_signatures_do_no_harm_but_a_false_one_of_the_key_does() -> None:
    other = Ed25519PrivateKey.generate()
    parsed = note.checkpoint_parse(signed())
    line = note.note_sign(parsed.text, "witness", other).rpartition("\n\n")[2]
    assert accepted(signed() + line)
    assert accepted(parsed.text + "\n" + line + signed().rpartition("\n\n")[2])
    false = note.note_sign("other\n1\n\n".replace("\n\n", "\n"), "log.example/audit", KEY).rpartition("\n\n")[2]
    assert not accepted(signed() + false)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\tb", "a\u00a0b"])
def test_names_that_would_frame_another_note_are_refused(name: str) -> None:
    with pytest.raises(note.NoteError):
        note.checkpoint_text(name, 1, b"r" * 32)


@pytest.mark.parametrize("vkey", ["a", "a+b", VKEY[:-4], VKEY.replace("530d903a", "530d903b"), "x" + VKEY])
def test_keys_that_do_not_fit_their_id_are_refused(vkey: str) -> None:
    with pytest.raises(note.NoteError):
        note.Verifier.from_vkey(vkey)
