"""python3 verify.py [FOLDER]: check a bundle's files with the standard library alone. Exit code 0 intact, 1 altered.

Signatures are checked with openssl, see README.txt. This checks what openssl cannot: hashes of all files, the chain of
events, that each stands in the tree of checkpoint.txt (RFC 6962), and that decisions.json says what they say.
"""

import base64
import hashlib
import json
import sys
from pathlib import Path


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def root_by(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes | None:
    """The root that this path leads to, or None when it is no path of that place."""
    place, last, found = index, size - 1, sha(b"\x00" + leaf)
    for sibling in path:
        if last == 0:
            return None
        if place & 1 or place == last:
            found = sha(b"\x01" + sibling + found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = sha(b"\x01" + found + sibling)
        place, last = place >> 1, last >> 1
    return found if last == 0 and 0 <= index < size else None


def check(right: bool, words: str) -> None:
    if not right:
        sys.stdout.write("ALTERED: " + words + "\n")
        sys.exit(1)


def main(folder: Path) -> None:
    envelope = json.loads((folder / "attestation.dsse.json").read_bytes())
    subject = json.loads(base64.b64decode(envelope["payload"]))["subject"]
    for file in subject:
        with (folder / file["name"]).open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        check(found == file["digest"]["sha256"], file["name"] + " is not the attested file")
    sys.stdout.write(f"files      {len(subject)} are the attested ones\n")
    note = (folder / "checkpoint.txt").read_text(encoding="utf-8").split("\n")
    size, root = int(note[1]), base64.b64decode(note[2])
    said = json.loads((folder / "decisions.json").read_bytes())
    acts = {act["seq"]: act for part in (said["policy"], *(rule["acts"] for rule in said["rules"])) for act in part}
    before, number, total = bytes(32), 0, len(acts)
    files = [(folder / name).open("rb") for name in ("events.jsonl", "bodies.jsonl", "proofs.jsonl")]
    for leaf, body, proof in zip(*(map(bytes.rstrip, file) for file in files), strict=True):
        event, done, place = json.loads(leaf), json.loads(body), json.loads(proof)
        check(event["body_sha256"] == sha(body).hex(), f"the body of event {event['seq']} is another")
        path = [bytes.fromhex(one) for one in place["path"]]
        check(root_by(leaf, place["index"], size, path) == root, f"event {event['seq']} is not in the log")
        if event["chain"].startswith("ruleset:"):
            number += 1
            check(event["seq"] == number and event["prev"] == before.hex(), f"event {number} does not follow")
            before = sha(b"\x00" + leaf)
        else:
            act = acts.pop(event["seq"], {})
            told, logged = [act.get(key) for key in ("at", "action", "actor")], [event["at"], done["action"]]
            check(told == [*logged, done["actor"]["name"]], f"decisions.json says something else than {event['seq']}")
            data = json.dumps(act["data"], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
            check(sha(data.encode()).hex() == done["data_sha256"], f"the data of event {event['seq']} is another")
    check(number > 0 and not acts, "events are missing")
    sys.stdout.write(
        f"events     {number} of the ruleset without gaps, {total} of its decisions and policy as logged\n"
    )
    sys.stdout.write(f"log        all of them in the tree of {size}\nINTACT: {len(subject)} files\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
