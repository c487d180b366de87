"""What people call the three splits, in the names of folders and files."""

from __future__ import annotations

import re

WORDS = {
    "train": "train training trn base background seen",
    "val": "val valid validation validate dev development",
    "test": "test testing tst tests novel unseen evaluation eval heldout holdout",
}
PART_OF_WORD = {word: part for part, words in WORDS.items() for word in words.split()}

BESIDE = (
    "meta",
    "set",
    "split",
    "class",
    "classes",
    "data",
    "img",
    "imgs",
    "image",
    "images",
    "photos",
    "files",
    "list",
)
"""Words that may stand beside the name of a split."""

ANY_WORD = "|".join(sorted(PART_OF_WORD, key=len, reverse=True))
JOINED = re.compile(rf"(?:meta)?((?:{ANY_WORD})+)(?:set|images|classes|data)?")
"""Words written as one: metatrain, valset, trainval."""


def find_parts(name: str) -> set[str]:
    """Return the splits that a name speaks of, and of nothing else: Train, meta_val, novel-classes, test2017.

    Returns: none for another name; more than one for a name such as trainval.
    """
    words = [word for word in re.findall(r"[^\W\d_]+", name.casefold()) if word not in BESIDE]
    joined = [JOINED.fullmatch(word) for word in words]
    if not all(joined):
        return set()
    return {PART_OF_WORD[word] for match in joined if match for word in re.findall(ANY_WORD, match[1])}
