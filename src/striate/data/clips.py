"""Clips in a folder for each class: `root/CLASS/clip/frame.png` or `root/CLASS/clip.gif`, also
below train, val and test."""

from pathlib import Path

from striate.data.files import digests_of, ignored, is_hidden, leads_up
from striate.data.folder import in_class_folders, records_of
from striate.data.records import Records
from striate.errors import DataError
from striate.preprocess.clip import frame_files
from striate.preprocess.picture import SUFFIXES

VIDEOS = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"))
ANIMATED = frozenset((".gif", ".webp", ".tif", ".tiff"))  # files that may hold several frames
FRAMES = "make a folder of frames of each (ffmpeg -i clip.mp4 clip/%04d.png)"
LAYOUT = "expected one folder of clips for each class (root/CLASS/clip/frame.png or CLASS/clip.gif)"


def matches(source: str, kind: str | None) -> bool:
    """Whether clips are wanted of a folder; the same folder may be one of pictures, too."""
    return kind == "clip" and Path(source).is_dir()


def read(source: str, kind: str | None) -> Records:
    """The clips below `source`: folders of frames, and files of several frames.

    Raises `DataError` when there is no class folder with a clip in it.
    """
    root = Path(source)
    found, others, problems = in_class_folders(root, _clips_in, "clip")
    videos = [path for path in others if path.suffix.lower() in VIDEOS]
    stills = [path for path in others if path.suffix.lower() not in VIDEOS]
    if not found:
        raise DataError(f"{root}: {LAYOUT}, got {_what_is_there(stills, videos)}")
    problems += ignored(stills, root, "a single picture is no clip")
    problems += ignored(videos, root, f"a video is not read, {FRAMES}")
    digests = digests_of([path for path, _, _ in found])
    return records_of(root, found, digests, problems, kind="clip")


def _clips_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """(clips, single pictures and videos) of one class, at any depth, by their names."""
    clips: list[Path] = []
    others: list[Path] = []
    for path in sorted(path for path in folder.iterdir() if not is_hidden(path)):
        suffix = path.suffix.lower()
        if path.is_dir() and frame_files(path):
            clips.append(path)
        elif path.is_dir() and not leads_up(path):
            inner, rest = _clips_in(path)
            clips, others = clips + inner, others + rest
        elif suffix in ANIMATED:
            clips.append(path)
        elif suffix in SUFFIXES | VIDEOS:
            others.append(path)
    return clips, others


def _what_is_there(stills: list[Path], videos: list[Path]) -> str:
    if videos:
        return f"videos, such as {videos[0]}; {FRAMES}"
    return f"single pictures, such as {stills[0]}" if stills else "no clip in it"
