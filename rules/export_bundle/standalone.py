"""python3 verify.py [FOLDER]: check a bundle's files with the standard library alone. Exit code 0 intact, 1 altered.

Signatures are checked with openssl, see README.txt. This checks what openssl cannot: hashes of all files, the chain of
events and that each stands in the tree of checkpoint.txt (RFC 6962).
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
    statement = json.loads(base64.b64decode(envelope["payload"]))
    for file in statement["subject"]:
        check(
            sha((folder / file["name"]).read_bytes()).hex() == file["digest"]["sha256"],
            file["name"] + " is not the attested file",
        )
    leaves = (folder / "events.jsonl").read_bytes().splitlines()
    bodies = (folder / "bodies.jsonl").read_bytes().splitlines()
    proofs = json.loads((folder / "proofs.json").read_bytes())["inclusion"]
    lines = (folder / "checkpoint.txt").read_text(encoding="utf-8").split("\n")
    size, root = int(lines[1]), base64.b64decode(lines[2])
    check(0 < len(leaves) == len(bodies) == len(proofs), "events, bodies and proofs differ in number")
    before = bytes(32)
    for number, (leaf, body, proof) in enumerate(zip(leaves, bodies, proofs, strict=True), 1):
        said = json.loads(leaf)
        check(said["seq"] == number and said["prev"] == before.hex(), f"event {number} does not follow")
        check(said["body_sha256"] == sha(body).hex(), f"the body of event {number} is another")
        path = [bytes.fromhex(one) for one in proof["path"]]
        check(root_by(leaf, proof["index"], size, path) == root, f"event {number} is not in the log")
        before = sha(b"\x00" + leaf)
    sys.stdout.write(f"INTACT: {len(statement['subject'])} files, {len(leaves)} events in the tree of {size}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
