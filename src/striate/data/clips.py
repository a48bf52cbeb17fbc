"""Clips in a folder for each class: `root/CLASS/clip/frame.png` or `root/CLASS/clip.gif`, also
below train, val and test."""

from pathlib import Path

from striate.data.files import digests_of, ignored, is_hidden
from striate.data.folder import in_class_folders, records_of
from striate.data.records import Records
from striate.errors import DataError
from striate.preprocess.clip import frame_files
from striate.preprocess.picture import SUFFIXES

ANIMATED = frozenset((".gif", ".webp", ".tif", ".tiff"))  # files that may hold several frames
LAYOUT = "expected one folder of clips for each class (root/CLASS/clip/frame.png or CLASS/clip.gif)"


def matches(source: str, kind: str | None) -> bool:
    """Whether clips are wanted of a folder; the same folder may be one of pictures, too."""
    return kind == "clip" and Path(source).is_dir()


def read(source: str, kind: str | None) -> Records:
    """The clips below `source`: folders of frames, and files of several frames.

    Raises `DataError` when there is no class folder with a clip in it.
    """
    root = Path(source)
    found, stills, problems = in_class_folders(root, _clips_in, "clip")
    if not found:
        got = f"single pictures, such as {stills[0]}" if stills else "no clip in it"
        raise DataError(f"{root}: {LAYOUT}, got {got}")
    problems += ignored(stills, root, "a single picture is no clip")
    digests = digests_of([path for path, _, _ in found])
    return records_of(root, found, digests, problems, kind="clip")


def _clips_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """(clips, single pictures) of one class, by their names."""
    entries = sorted(path for path in folder.iterdir() if not is_hidden(path))
    files = [path for path in entries if path.suffix.lower() in SUFFIXES and path.is_file()]
    frames = [path for path in entries if path.is_dir() and frame_files(path)]
    animated = [path for path in files if path.suffix.lower() in ANIMATED]
    return sorted(frames + animated), [path for path in files if path not in animated]
