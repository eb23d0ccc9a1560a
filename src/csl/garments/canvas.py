"""The canvas: masks in perspective, paint, and light and shade.

Everything is drawn in garment coordinates: the origin is the middle of the shoulder line, x points right, y points
down, and 1 is about the side of the picture. A camera (rotation, scale, shift, perspective) turns them into pixels.
Outlines are filled at `SUPERSAMPLE` times the size and reduced, so that edges are smooth.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFilter

SUPERSAMPLE = 3
TILE_SCALE = 200  # pixels of a motif tile per unit of garment coordinates


def noise(rng: Generator, cells: tuple[int, int], size: int) -> np.ndarray:
    """Smooth noise, float32 [size, size], of mean 0 and about unit deviation, with cells = (columns, rows) bumps."""
    coarse = rng.standard_normal(cells[::-1]).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def blur(alpha: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur, `radius` in pixels, of a mask [H, W] in [0, 1]; wide ones are computed at half the size."""
    image = Image.fromarray((alpha * 255).astype(np.uint8))
    if radius < 2:
        image = image.filter(ImageFilter.GaussianBlur(radius))
    else:
        size = image.size
        image = image.reduce(2).filter(ImageFilter.GaussianBlur(radius / 2)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32) * np.float32(1 / 255)


def step(x: np.ndarray, soft: float) -> np.ndarray:
    """1 where x > 0 and 0 where x < 0, with an edge `soft` > 0 wide."""
    return np.clip(x / soft + 0.5, 0, 1)


def from_middle(x: np.ndarray) -> np.ndarray:
    """Distance from the middle of each period of 1, 0 to 0.5."""
    return np.abs(x - np.floor(x) - 0.5)


def band(x: np.ndarray, width: float, soft: float) -> np.ndarray:
    """1 inside a band of `width` (0 to 1) in every period of 1, 0 outside, with edges `soft` > 0 wide."""
    return step(width / 2 - from_middle(x), soft)


class Canvas:
    """The picture so far and the camera that looks at the garment.

    Masks are float32 [H, W] with 0 outside and 1 inside; H = W = `size`.

    Attributes:
        size: side of the picture in pixels.
        rgb: the picture so far, float32 [H, W, 3] in [0, 1].
        x, y: position of every pixel [H, W] in the picture, 0 to 1 from the upper left corner.
        u, v: position of every pixel [H, W] in garment coordinates.
        pixels_per_unit: pixels per unit of garment coordinates, about.
        light: unit vector (x, y) towards the light; y points down.
    """

    def __init__(self, rng: Generator, size: int):
        self.size = size
        angle = np.deg2rad(np.clip(rng.normal(0, 3.5), -12, 12))
        scale = rng.uniform(1.06, 1.22) * size
        self.pixels_per_unit = scale
        c, s = scale * np.cos(angle), scale * np.sin(angle)
        shift = np.array([0.5, 0.215]) + rng.uniform(-0.03, 0.03, 2)
        self._matrix = np.array(
            [
                [c * rng.uniform(0.94, 1.06), -s, shift[0] * size],
                [s, c, shift[1] * size],
                [*rng.uniform(-0.08, 0.08, 2), 1],
            ]
        )
        y, x = np.mgrid[:size, :size].astype(np.float32) + 0.5
        self.x, self.y = x / size, y / size
        inverse = np.linalg.inv(self._matrix).astype(np.float32)
        w = inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2]
        self.u = (inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) / w
        self.v = (inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) / w
        self.rgb = np.zeros((size, size, 3), np.float32)
        angle = rng.uniform(-2.4, -0.7)
        self.light = np.float32([np.cos(angle), np.sin(angle)])

    def _project(self, points):
        """Garment coordinates [N, 2] -> super-sampled pixels, a flat list."""
        points = np.asarray(points, float) @ self._matrix[:, :2].T + self._matrix[:, 2]
        return (points[:, :2] / points[:, 2:] * SUPERSAMPLE).ravel().tolist()

    def fill(self, *outlines: ArrayLike) -> np.ndarray:
        """The mask [H, W] of closed outlines, each [N, 2] in garment coordinates."""
        layer = Image.new("L", (self.size * SUPERSAMPLE,) * 2)
        for outline in outlines:
            ImageDraw.Draw(layer).polygon(self._project(outline), fill=255)
        return np.asarray(layer.reduce(SUPERSAMPLE), np.float32) / 255

    def stroke(self, width: float, *paths: ArrayLike) -> np.ndarray:
        """The mask [H, W] of open paths, each [N, 2]; they and `width` in garment coordinates."""
        pixels = max(1, round(width * self.pixels_per_unit * SUPERSAMPLE))
        layer = Image.new("L", (self.size * SUPERSAMPLE,) * 2)
        for path in paths:
            ImageDraw.Draw(layer).line(self._project(path), fill=255, width=pixels, joint="curve")
        return np.asarray(layer.reduce(SUPERSAMPLE), np.float32) / 255

    def paint(self, alpha: np.ndarray, color: np.ndarray, shading: np.ndarray | None = None) -> None:
        """Blend a colour [3] or a picture [H, W, 3], times `shading` [H, W], into the canvas by alpha [H, W]."""
        if shading is not None:
            color = color * shading[..., None]
        area = alpha.any(1).nonzero()[0], alpha.any(0).nonzero()[0]
        if not area[0].size:
            return
        box = slice(area[0][0], area[0][-1] + 1), slice(area[1][0], area[1][-1] + 1)
        under = self.rgb[box]
        under += alpha[box][..., None] * ((color[box] if color.ndim == 3 else color) - under)

    def darken(self, alpha: np.ndarray, amount: float) -> None:
        """Take `amount` (0 to 1) of the light away where alpha [H, W] is 1."""
        self.rgb *= (1 - amount * alpha)[..., None]

    def shadow(self, alpha: np.ndarray, radius: float, amount: float, offset: float = 1.0) -> None:
        """Draw the soft shadow of a mask, thrown away from the light by `offset` times the radius (in pixels)."""
        dx, dy = -self.light * radius * offset
        rows, columns = (np.clip(np.arange(self.size) - round(float(step)), 0, self.size - 1) for step in (dy, dx))
        self.darken(blur(alpha, radius)[rows[:, None], columns], amount)

    def volume(self, alpha: np.ndarray, radius: float, depth: float) -> np.ndarray:
        """Shading [H, W] that makes a flat mask look rounded, as if lit from the light's side.

        `radius` in pixels is how far the rounding reaches in, and `depth` (0 to 1) how dark it gets; 1 is no change.
        """
        height = blur(alpha, radius)
        dy, dx = np.gradient(height)
        relief = (dx * -self.light[0] + dy * -self.light[1]) * -radius
        return 1 - depth * (1 - height) * 1.1 + depth * 1.1 * relief

    def sample(self, tile: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Colours [H, W, C] of a tile [h, w, C] that repeats over garment coordinates u, v [H, W]."""
        rows = np.floor(v * TILE_SCALE).astype(int) % tile.shape[0]
        columns = np.floor(u * TILE_SCALE).astype(int) % tile.shape[1]
        return tile[rows, columns]
