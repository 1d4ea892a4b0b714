"""Files in the folder of a study that nothing makes any more: of an older version, or of what was renamed."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

# So many kinds of files are named.
_NAMED = 12


def leftovers(folder: Path, known: Sequence["re.Pattern[str]"]) -> Iterator[Path]:
    """Yield the files in a folder, at any depth, that match none of the `known` patterns of paths.

    What lies in a known folder is known. Hidden files, such as a half-written one, are passed over.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or any(pattern.fullmatch(str(path)) for pattern in known):
            continue
        if path.is_dir():
            yield from leftovers(path, known)
        else:
            yield path


def describe_leftovers(folder: Path, known: Sequence["re.Pattern[str]"]) -> str:
    """Return what to tell the user of the `leftovers` in the folder of a study; nothing if there are none."""
    kinds = Counter(path.name for path in leftovers(folder, known))
    if not kinds:
        return ""
    named = [f"{name} ({count})" if count > 1 else name for name, count in kinds.most_common(_NAMED)]
    more = len(kinds) - len(named)
    names = ", ".join(named) + (f" and {more} more names" if more > 0 else "")
    return (
        f"notice: in {folder}, this version neither makes nor reads {names}. They are left as they are: "
        "delete them if you do not need them."
    )


def notices(results: Path, studies: Iterable[str], known: Sequence["re.Pattern[str]"]) -> Iterator[str]:
    """Yield what to tell of the folder of all results and of that of each study.

    Folders beside those of the studies are not looked into: they may be of studies in a file that is not given now.
    """
    folders = "|".join(re.escape(path.name) for path in results.glob("*") if path.is_dir())
    beside = re.compile(rf"{re.escape(str(results))}/(?:README\.md|{folders})")
    for folder, patterns in [(results, [*known, beside]), *((results / study, known) for study in studies)]:
        if said := describe_leftovers(folder, patterns):
            yield said
