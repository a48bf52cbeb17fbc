"""Why does a net answer as it does? Maps over pictures, pictures of what it sees, attacks on it.

explanation = striate.explain(striate.load("saved_models/mine"), ["a.jpg"], method="grad_cam")
explanation.maps                      float32 [N, H, W]
explanation.save("out/")              the pictures with their maps over them

Every method is one function in one short file; `METHODS` names them and says what each measures.
"""

import dataclasses
import inspect
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from striate.artifact import check_several
from striate.errors import UsageError, check_whole, did_you_mean
from striate.explain.cam import cam
from striate.explain.descent import unheard
from striate.explain.drawing import coloured, overlay, save_picture, side_by_side, unique
from striate.explain.grad_cam import grad_cam, grad_cam_plus_plus
from striate.explain.guided import guided_backprop, guided_grad_cam
from striate.explain.integrated_gradients import integrated_gradients
from striate.explain.occlusion import occlusion
from striate.explain.options import check_options
from striate.explain.saliency import saliency
from striate.explain.smoothgrad import smoothgrad
from striate.explain.subject import Subject, in_batches, subject_of
from striate.explain.views import VIEWS, Drawing
from striate.files import made_folder
from striate.lazy import Verb
from striate.preprocess import pixels as decode

Progress = Callable[[int, int], None]

__all__ = [
    "METHODS",
    "VIEWS",
    "Drawing",
    "Explanation",
    "Method",
    "Subject",
    "draw",
    "explain",
    "subject_of",
]

sys.modules[__name__].__class__ = Verb  # striate.explain(...) is striate.explain.explain(...)


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to explain single answers by maps.

    function: (subject, pixels float32 [N, H, W, C], targets int [N], **options) -> float32
    [N, H, W]. measures: what a value of the map is, in words. signed: whether values below zero
    speak against the class. fine: whether neighbouring pixels differ, so that the map is drawn
    beside the picture rather than over it.
    """

    function: Callable[..., np.ndarray]
    measures: str
    signed: bool = False
    fine: bool = False


METHODS: dict[str, Method] = {
    "grad_cam": Method(grad_cam, "what the last maps there add to the logit, by their slopes"),
    "grad_cam_plus_plus": Method(
        grad_cam_plus_plus, "what the last maps there add to exp(logit), place by place"
    ),
    "cam": Method(cam, "what the last maps there add to the logit, exactly", signed=True),
    "occlusion": Method(
        occlusion, "how far the logit falls when a grey window hides the place", signed=True
    ),
    "saliency": Method(
        saliency, "how far the logit moves with one grey level of the pixel", fine=True
    ),
    "smoothgrad": Method(
        smoothgrad, "saliency, averaged over noisy copies of the picture", fine=True
    ),
    "integrated_gradients": Method(
        integrated_gradients,
        "the pixel's share in the rise of the logit from a black picture",
        signed=True,
        fine=True,
    ),
    "guided_backprop": Method(
        guided_backprop, "edges that excite the net; hardly its reasons", fine=True
    ),
    "guided_grad_cam": Method(guided_grad_cam, "guided_backprop where grad_cam looks", fine=True),
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Why a net gave its answers to some pictures.

    method: of `METHODS`; maps: float32 [N, H, W], in the units of `measures`; pixels: uint8
    [N, H, W, C], what the net saw; targets: int [N], the classes explained; logits: float32
    [N, classes].
    """

    method: str
    maps: np.ndarray
    pixels: np.ndarray
    targets: np.ndarray
    logits: np.ndarray
    labels: tuple[str, ...]
    names: tuple[str, ...]

    def __repr__(self) -> str:
        """In a line: which classes by which method."""
        names = [self.labels[target] for target in self.targets[:3]]
        more = ", ..." if len(self.targets) > 3 else ""
        classes = ", ".join(map(repr, names)) + more
        return f"<Explanation by {self.method}: {len(self.maps)} maps of {classes}>"

    @property
    def measures(self) -> str:
        """What a value of the maps is, in words."""
        return METHODS[self.method].measures

    def save(self, folder: str | os.PathLike) -> list[Path]:
        """Write each picture with its map over it as `NAME.METHOD.png`; returns the files."""
        with made_folder(Path(folder)) as found:
            return [
                save_picture(drawing.pixels, found / f"{name}.{self.method}.png")
                for name, drawing in self.drawings()
            ]

    def drawings(self) -> Iterator[tuple[str, Drawing]]:
        """(name, drawing) of each picture: itself, and its map over it or beside it."""
        how = METHODS[self.method]
        for i, name in enumerate(unique(self.names)):
            pixels, heat, target = self.pixels[i], self.maps[i], self.targets[i]
            if how.fine:
                shown = coloured(heat, signed=how.signed)
            else:
                shown = overlay(pixels, heat, signed=how.signed)
            facts = {"class": self.labels[target], "logit": float(self.logits[i, target])}
            caption = f"{self.labels[target]}: {self.measures}"
            yield name, Drawing(side_by_side(pixels, shown), caption, facts)


def explain(
    source: Any,
    images: Sequence[Any] | np.ndarray,
    *,
    method: str = "grad_cam",
    target: Any = None,
    names: Sequence[str] | None = None,
    batch_size: int = 16,
    on_progress: Progress = unheard,
    **options: Any,
) -> Explanation:
    """Say which parts of pictures speak for a class.

    source: an artifact or its path, a net of `create_model`, or a `Subject`; images: paths, encoded
    bytes, Pillow images or uint8 arrays, in a list, or all together as uint8 [N, H, W, C] at the
    size of the net's input; target: a label or an index, or one for each picture, by default what
    the net answers; names: of the pictures, by default their files' or their numbers; options: of
    the method; on_progress: called with (work done, work), in units that depend on the method.

    Raises `UsageError` for an unknown method, option or class and for a value that an option cannot
    have, `DataError` for an unreadable file.

    >>> explain(load("saved_models/squeezenet1_1"), ["examples/photos/cat.jpg"]).maps.shape
    (1, 227, 227)
    """
    check_method(method, METHODS)
    check_asked(method, options)
    check_whole("batch_size", batch_size, 1)
    chosen = METHODS[method]
    subject = source if isinstance(source, Subject) else subject_of(source)
    pixels = _pixels(subject, images)
    named = _named(images, names)
    batches = [slice(i, i + batch_size) for i in range(0, len(pixels), batch_size)]
    floats = pixels.astype(np.float32)
    logits = in_batches(subject.logits, floats, batch_size=batch_size)
    targets = subject.targets(target, logits)
    maps = [
        chosen.function(
            subject,
            floats[batch],
            targets[batch],
            **options,
            **_heard(chosen.function, on_progress, i, len(batches)),
        )
        for i, batch in enumerate(batches)
    ]
    return Explanation(method, np.concatenate(maps), pixels, targets, logits, subject.labels, named)


def draw(
    source: Any,
    images: Sequence[Any] | np.ndarray,
    method: str = "grad_cam",
    target: Any = None,
    *,
    names: Sequence[str] | None = None,
    on_progress: Progress = unheard,
    **options: Any,
) -> Iterator[tuple[str, Drawing]]:
    """(name, drawing) of each picture, by any of `METHODS` or `VIEWS`.

    Arguments and errors as of `explain`; a view of a set of pictures gives one drawing, and a view
    of classes or of the net takes no images.
    """
    if method not in VIEWS:
        how = {"method": method, "target": target, "names": names, "on_progress": on_progress}
        yield from explain(source, images, **how, **options).drawings()
        return
    check_asked(method, options)
    view = VIEWS[method]
    if target is None and view.leads:
        raise UsageError(f"{method} needs the class to be taken for, as target= or --class")
    subject = source if isinstance(source, Subject) else subject_of(source)
    if view.of == "pictures":
        named = _named(images, names)
        yield from _one_by_one(subject, view, images, named, target, options, on_progress)
        return
    named, pixels, targets = _asked(subject, method, images, target, options.get("layer"))
    options |= _heard(view.options or view.function, on_progress, 0, 1)
    yield from zip(unique(named), view.function(subject, pixels, targets, **options), strict=True)


def _one_by_one(
    subject, view, images, names, target, options, on_progress
) -> Iterator[tuple[str, Drawing]]:
    """One picture after the other: making them takes long, and the first is worth seeing soon."""
    pixels = _pixels(subject, images).astype(np.float32)
    targets = subject.targets(target, in_batches(subject.logits, pixels))
    for i, name in enumerate(unique(names)):
        heard = _heard(view.options or view.function, on_progress, i, len(images))
        one = slice(i, i + 1)
        (drawing,) = view.function(subject, pixels[one], targets[one], **options, **heard)
        yield name, drawing


def _asked(
    subject: Subject, view: str, images: Sequence[Any] | np.ndarray, target: Any, layer: str | None
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(names of the drawings, pixels, targets) of a view of a set, of classes or of the net.

    layer: whose units a view of classes draws instead, the targets being their numbers.
    """
    if VIEWS[view].of == "set":
        pixels = _pixels(subject, images).astype(np.float32)
        return (
            [subject.spec.name],
            pixels,
            subject.targets(target, in_batches(subject.logits, pixels)),
        )
    nothing = np.zeros((0, *subject.preprocess.shape), np.float32)
    if VIEWS[view].of == "net":
        return [subject.spec.name], nothing, np.zeros(0, np.int64)
    if target is None:
        raise UsageError(f"{view} needs the classes to draw, as target=[...] or --class")
    wanted = target if isinstance(target, list | tuple) else [target]
    if layer is not None:
        units = [subject.unit(layer, one) for one in wanted]
        return [f"{layer}_{unit}" for unit in units], nothing, np.array(units, np.int64)
    classes = [subject.index(one) for one in wanted]
    return [subject.labels[i] for i in classes], nothing, np.array(classes, np.int64)


def _heard(function: Callable, on_progress: Progress, part: int, parts: int) -> dict[str, Progress]:
    """`on_progress` as an argument of one of several equal parts; none for a quick function."""
    if "on_progress" not in inspect.signature(function).parameters:
        return {}
    return {"on_progress": lambda done, total: on_progress(part * total + done, parts * total)}


def _named(images: Sequence[Any] | np.ndarray, names: Sequence[str] | None) -> tuple[str, ...]:
    """The names of pictures: those given, or else their files' or their numbers."""
    if names is None:
        return tuple(
            Path(image).stem if isinstance(image, str | os.PathLike) else str(i)
            for i, image in enumerate(images)
        )
    if len(names) != len(images):
        raise UsageError(f"expected a name for each of {len(images)} pictures, got {len(names)}")
    return tuple(names)


def check_method(name: str, known: Collection[str] = (*METHODS, *VIEWS)) -> None:
    """`UsageError` for a name that is neither a method nor a view, with the nearest."""
    if name in VIEWS and name not in known:
        raise UsageError(
            f"expected a method that gives maps, got the view {name!r}, which "
            "striate.explain.draw draws"
        )
    if name not in known:
        every = [*METHODS, *VIEWS]
        raise UsageError(
            f"expected a method of explaining, got {name!r}.{did_you_mean(name, every)} "
            f"They are: {', '.join(every)}."
        )


def check_asked(method: str, options: Mapping[str, Any]) -> None:
    """`UsageError` for an unknown method or view, or an option that it does not have or cannot have
    so; no Keras is loaded for it."""
    check_method(method)
    how = VIEWS[method] if method in VIEWS else METHODS[method]
    also = getattr(how, "options", None)  # the function that a view hands its options to
    check_options(method, options, how.function, *filter(None, (also,)))
    if method in VIEWS:
        VIEWS[method].check(options)


def needed(method: str) -> str:
    """What a method or view explains: `pictures`, a `set` of them, `classes`, or the `net`."""
    return VIEWS[method].of if method in VIEWS else "pictures"


def _pixels(subject: Subject, images: Sequence[Any] | np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] at the size of the net's input."""
    shape = subject.preprocess.shape
    check_several(images, shape)
    if isinstance(images, np.ndarray) and images.dtype.kind in "biuf":
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise UsageError(
                f"expected uint8 pixels [N, {', '.join(map(str, shape))}], got {images.dtype} "
                f"{list(images.shape)}; give paths to have them resized"
            )
        return images
    return np.stack([decode(image, subject.preprocess) for image in images])
