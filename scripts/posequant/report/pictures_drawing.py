"""Skeletons over photographs, and heatmaps in colours."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

REFERENCE, CANDIDATE, ANNOTATION = "#56b4e9", "#ff8a3d", "#35d6a4"
"""Colours of skeletons: told apart with any kind of colour vision, and on photographs."""

# The ends of the diverging colour map of a difference; its middle is white. Of about the same lightness.
_LESS, _MORE = "#0072b2", "#d55e00"
_BACKGROUND, _INK, _DARK, _LIGHT = "#f5f5f5", "#222222", "#000000", "#ffffff"
# Of a composite, in pixels.
_GAP, _TITLE_HEIGHT, _PANEL, _TALLEST_HEATMAP = 8, 26, 320, 240
# OpenCV takes places in fractions of a pixel: of so many bits.
_BITS = 4


@dataclass(frozen=True)
class Skeleton:
    """A pose in a photograph.

    Attributes:
        points: of the keypoints, continuous, float64 (K, 2); see `Frame`.
        limbs: pairs of keypoints that are joined by lines.
        drawn: which keypoints are drawn, bool (K,).
        color: as `#rrggbb`.
    """

    points: Floats
    limbs: Sequence[tuple[int, int]]
    drawn: NDArray[np.bool_]
    color: str


@dataclass(frozen=True)
class Panel:
    """A photograph with skeletons over it, the first at the bottom, and an arrow from one place to another."""

    title: str
    photograph: Pixels
    skeletons: Sequence[Skeleton]
    arrow: tuple[Floats, Floats] | None


@dataclass(frozen=True)
class Heatmaps:
    """A joint's heatmaps of two networks, float32 (h, w), in colours.

    Attributes:
        reference, candidate: on one scale, from the least value of both to the largest, by viridis; uint8 (h, w, 3).
        difference: candidate - reference: blue is less, white is equal, orange is more.
        largest_difference: the greatest absolute difference, where the colours of the difference end.
        peaks: where the two are largest, x and y in pixels of the heatmap.
    """

    reference: Pixels
    candidate: Pixels
    difference: Pixels
    largest_difference: float
    peaks: tuple[tuple[int, int], tuple[int, int]]

    @classmethod
    def of(cls, reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> "Heatmaps":
        """Colour two heatmaps."""
        both = np.stack([reference, candidate]).astype(np.float64)
        low, high = both.min(), both.max()
        levels = np.rint((both - low) / (high - low or 1) * 255).astype(np.uint8)
        full, reduced = (np.asarray(cv2.applyColorMap(one, cv2.COLORMAP_VIRIDIS), np.uint8) for one in levels)
        difference = both[1] - both[0]
        largest = float(np.abs(difference).max())
        return cls(full, reduced, _diverging(difference / (largest or 1)), largest, (_peak(both[0]), _peak(both[1])))


def composite(panels: Sequence[Panel], heatmaps: Heatmaps | None, titles: Sequence[str]) -> Pixels:
    """Return one picture: panels side by side and below them the three heatmaps, each under its title.

    Args:
        panels: two, of photographs of one size.
        heatmaps: of a joint.
        titles: of the heatmaps of the reference, of the candidate, and of the difference.
    """
    rows = [_row([(panel.title, _drawn(panel)) for panel in panels], _PANEL)]
    if heatmaps:
        width = (2 * _PANEL + _GAP - 2 * _GAP) // 3
        (height, columns), peaks = heatmaps.reference.shape[:2], heatmaps.peaks
        factor = min(width / columns, _TALLEST_HEATMAP / height)
        large = [
            _enlarged(heatmaps.reference, factor, peaks[0], REFERENCE),
            _enlarged(heatmaps.candidate, factor, peaks[1], CANDIDATE),
            _enlarged(heatmaps.difference, factor),
        ]
        rows.append(_row(list(zip(titles, large, strict=True)), width))
    total = max(row.shape[1] for row in rows)
    gap = np.full((_GAP, total, 3), _bgr(_BACKGROUND), np.uint8)
    parts = [part for row in rows for part in (_widened(row, total), gap)]
    return np.vstack(parts[:-1])


def _drawn(panel: Panel) -> Pixels:
    picture = panel.photograph.copy()
    for skeleton in panel.skeletons:
        places = [_fixed(point) for point in skeleton.points]
        limbs = [(places[a], places[b]) for a, b in skeleton.limbs if skeleton.drawn[a] and skeleton.drawn[b]]
        # A dark edge, so that a line is seen on any ground. The annotation has none: it shall not hide what is there.
        strokes = [(skeleton.color, 0)] if skeleton.color == ANNOTATION else [(_DARK, 1), (skeleton.color, 0)]
        for color, edge in strokes:
            for start, end in limbs:
                cv2.line(picture, start, end, _bgr(color), 2 + 2 * edge, cv2.LINE_AA, _BITS)
        for color, edge in strokes:
            for place in np.array(places)[skeleton.drawn].tolist():
                cv2.circle(picture, place, (3 + edge) << _BITS, _bgr(color), cv2.FILLED, cv2.LINE_AA, _BITS)
    if panel.arrow:
        _draw_arrow(picture, *panel.arrow)
    return picture


def _draw_arrow(picture: Pixels, start: Floats, end: Floats) -> None:
    """Ring the place of the joint in FP32, and point from there to where it moved."""
    length = float(np.linalg.norm(end - start))
    for color, width in ((_DARK, 4), (_LIGHT, 2)):
        cv2.circle(picture, _fixed(start), 7 << _BITS, _bgr(color), width, cv2.LINE_AA, _BITS)
        if length > 12:  # else the head would be all of it, or inside the ring
            begin, tip = start + (end - start) * (7 / length), _fixed(end)
            head = 9 * _rotated((start - end) / length)
            for tail in (begin, end + head[0], end + head[1]):
                cv2.line(picture, _fixed(tail), tip, _bgr(color), width, cv2.LINE_AA, _BITS)


def _rotated(direction: Floats) -> Floats:
    """Return a direction turned by half a radian to one side and to the other, (2, 2)."""
    cosine, sine = np.cos(0.5), np.sin(0.5)
    return np.array([[[cosine, -turn], [turn, cosine]] for turn in (sine, -sine)]) @ direction


def _enlarged(heatmap: Pixels, factor: float, peak: tuple[int, int] | None = None, color: str = _DARK) -> Pixels:
    height, width = heatmap.shape[:2]
    size = (round(width * factor), round(height * factor))
    picture = np.asarray(cv2.resize(heatmap, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    if peak:
        centre = _fixed((np.array(peak) + 0.5) * factor)
        for one, width in ((_DARK, 4), (color, 2)):
            cv2.circle(picture, centre, 9 << _BITS, _bgr(one), width, cv2.LINE_AA, _BITS)
    return picture


def _row(pictures: Sequence[tuple[str, Pixels]], width: int) -> Pixels:
    """Return pictures of one height side by side, each in the middle of `width` pixels under its title."""
    columns = []
    for title, picture in pictures:
        head = np.full((_TITLE_HEIGHT, width, 3), _bgr(_BACKGROUND), np.uint8)
        _write(head, title)
        columns += [np.vstack([head, _widened(picture, width)])]
        columns += [np.full((len(columns[-1]), _GAP, 3), _bgr(_BACKGROUND), np.uint8)]
    return np.hstack(columns[:-1])


def _widened(picture: Pixels, width: int) -> Pixels:
    height, own = picture.shape[:2]
    wide = np.full((height, width, 3), _bgr(_BACKGROUND), np.uint8)
    left = (width - own) // 2
    wide[:, left : left + own] = picture
    return wide


def _write(picture: Pixels, text: str) -> None:
    """Write a line into the middle of a picture, smaller where it would not fit."""
    font, height, width = cv2.FONT_HERSHEY_SIMPLEX, *picture.shape[:2]
    wanted = 0.6
    (across, _), _ = cv2.getTextSize(text, font, wanted, 1)
    size = wanted * min(1, (width - 4) / across)
    (across, tall), _ = cv2.getTextSize(text, font, size, 1)
    cv2.putText(picture, text, ((width - across) // 2, (height + tall) // 2), font, size, _bgr(_INK), 1, cv2.LINE_AA)


def _peak(heatmap: Floats) -> tuple[int, int]:
    row, column = divmod(int(heatmap.argmax()), heatmap.shape[1])
    return column, row


def _diverging(values: Floats) -> Pixels:
    """Return colours of values from -1 to 1."""
    share = np.abs(values)[..., np.newaxis]
    ends = np.where(values[..., np.newaxis] < 0, _bgr(_LESS), _bgr(_MORE))
    colors: Pixels = np.rint(255 + share * (ends - 255)).astype(np.uint8)
    return colors


def _fixed(point: Floats) -> tuple[int, int]:
    """Return a continuous point as OpenCV takes it: from the middle of the first pixel, in fractions of a pixel."""
    x, y = np.rint((point - 0.5) * 2**_BITS).astype(int).tolist()
    return x, y


def _bgr(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return blue, green, red
