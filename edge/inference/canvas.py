"""Draw boxes, points, lines, masks and labels on a picture: line and text sizes follow its size, colors the class."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

Point = Sequence[float]
_GOLDEN = 0.618034  # of the color circle from a class to the next, so that consecutive classes look different
_FIRST_HUE = 0.33
_DARK = 140  # luma below which text on a color is white
_MASK_OPACITY = 0.55
_TRIANGLE = 3  # corners


class Canvas:
    """A copy of a picture to draw on; `image` is the result."""

    def __init__(self, image: Image) -> None:
        from PIL import ImageDraw

        self.image = image.convert("RGB")
        self._pen = ImageDraw.Draw(self.image)
        shorter = min(self.image.size)
        self._line = max(1, round(shorter / 240))
        self._text_size = max(9, min(28, round(shorter / 24)))

    @cached_property
    def _font(self) -> Any:
        from PIL import ImageFont

        return ImageFont.load_default(self._text_size)

    def box(self, corners: Sequence[float], index: int) -> None:
        """Draw the outline of a box: left, top, right, bottom."""
        left, top, right, bottom = corners
        self._pen.rectangle(
            (left, top, max(left, right - 1), max(top, bottom - 1)), outline=color_of(index), width=self._line
        )

    def points(self, points: Sequence[Point], index: int) -> None:
        """Draw dots."""
        radius = self._line + 0.5
        for x, y in points:
            self._pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color_of(index), outline=(0, 0, 0))

    def line(self, start: Point, end: Point, index: int) -> None:
        """Draw a line."""
        self._pen.line((*start, *end), fill=color_of(index), width=self._line + 1)

    def polygon(self, corners: Sequence[Point], index: int) -> None:
        """Tint the inside of a polygon and draw its outline."""
        from PIL import Image, ImageDraw

        if len(corners) < _TRIANGLE:
            return
        mask = Image.new("L", self.image.size)
        places = [(float(x), float(y)) for x, y in corners]
        ImageDraw.Draw(mask).polygon(places, fill=round(255 * _MASK_OPACITY))
        self.image.paste(color_of(index), mask=mask)
        self._pen.line([*places, places[0]], fill=color_of(index), width=self._line)

    def tag(self, corners: Sequence[float], text: str, index: int) -> None:
        """Write text on the class's color above a box, or inside it if there is no room above."""
        left, top = corners[0], corners[1]
        x0, y0, x1, y1 = self._pen.textbbox((0, 0), text, font=self._font)
        width, height = x1 - x0 + 4, y1 - y0 + 4
        left = max(0, min(left, self.image.width - width))
        top = top - height if top >= height else top
        color = color_of(index)
        self._pen.rectangle((left, top, left + width, top + height), fill=color)
        ink = (255, 255, 255) if luma(color) < _DARK else (0, 0, 0)
        self._pen.text((left + 2 - x0, top + 2 - y0), text, font=self._font, fill=ink)

    def mask(self, classes: NDArray[np.integer[Any]], skipped: int | None = None) -> None:
        """Tint the pixels of a class map [height, width] in their class's color, except those of class `skipped`."""
        import numpy as np
        from PIL import Image, ImageDraw

        present = np.unique(classes)
        colors = np.zeros((int(present.max(initial=0)) + 1, 3), np.float32)
        for index in present:
            colors[index] = color_of(int(index))
        pixels = np.asarray(self.image, np.float32)
        tinted = pixels * (1 - _MASK_OPACITY) + colors[classes] * _MASK_OPACITY
        chosen = pixels if skipped is None else np.where((classes == skipped)[..., None], pixels, tinted)
        self.image = Image.fromarray((tinted if skipped is None else chosen).astype(np.uint8))
        self._pen = ImageDraw.Draw(self.image)


def color_of(index: int) -> tuple[int, int, int]:
    """Return the color of a class: bright, always the same, and different from those of the classes next to it."""
    red, green, blue = colorsys.hsv_to_rgb((_FIRST_HUE + index * _GOLDEN) % 1, 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def luma(color: tuple[int, int, int]) -> float:
    """Return the brightness of a color as people see it, 0 to 255 (ITU-R BT.601)."""
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
