"""Fabric patterns, computed per pixel in the coordinates of the part (body or sleeve) that they lie on."""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

from csl.garments.canvas import SUPERSAMPLE, TILE_SCALE, Canvas, band, from_middle, noise, step
from csl.garments.colors import Colors, mix, pixel
from csl.garments.cut import Cut
from csl.garments.outlines import direction, ellipse

PATTERNS = (
    "solid",
    "horizontal stripes",
    "vertical stripes",
    "checks",
    "dots",
    "zigzag",
    "floral",
    "diagonal stripes",
    "colour block",
    "graphic print",
)


def weave(
    canvas: Canvas,
    rng: Generator,
    pattern: int,
    colors: Colors,
    cut: Cut,
    u: np.ndarray,
    v: np.ndarray,
    on_sleeve: np.ndarray,
) -> np.ndarray:
    """The cloth's colour at every pixel [H, W, 3], RGB in [0, 1].

    Args:
        canvas: the `Canvas` that it will be painted on.
        rng: a `numpy.random.Generator`.
        pattern: index into `PATTERNS`.
        colors: the `Colors` of the picture.
        cut: the garment's `Cut`; a print lies below its neckline.
        u: garment coordinates [H, W] across the part, body or sleeve, that a pixel belongs to.
        v: the same along the part.
        on_sleeve: mask [H, W] of the sleeves.
    """
    base, accent, third = colors.base, colors.accent, colors.third
    name = PATTERNS[pattern]
    period = rng.uniform(0.09, 0.13)
    soft = 1.3 / canvas.pixels_per_unit / period
    u, v = u + rng.uniform(0, 1), v + rng.uniform(0, 1)
    if name in ("horizontal stripes", "vertical stripes", "diagonal stripes"):
        angle = {"h": np.pi / 2, "v": 0.0, "d": rng.choice([-1, 1]) * rng.uniform(0.7, 0.87)}[name[0]]
        x = (u * np.cos(angle) + v * np.sin(angle)) / period
        cloth = mix(base, accent, band(x, rng.uniform(0.38, 0.58), soft))
        return mix(cloth, third, band(x + 0.5, 0.13, soft)) if rng.random() < 0.3 else cloth
    if name == "checks":
        period *= 1.25
        strength, width = rng.uniform(0.5, 0.7), rng.uniform(0.4, 0.55)
        across, down = band(u / period, width, soft), band(v / period, width, soft)
        cloth = mix(mix(base, accent, strength * across), accent, strength * down)
        line = np.maximum(band(u / period + 0.5, 0.09, soft), band(v / period + 0.5, 0.09, soft))
        return mix(cloth, third, 0.7 * line) if rng.random() < 0.5 else cloth
    if name == "dots":
        period *= 1.1
        x = u / period + 0.5 * (np.floor(v / period) % 2)
        distance = np.hypot(from_middle(x), from_middle(v / period))
        return mix(base, accent, step(rng.uniform(0.29, 0.35) - distance, soft))
    if name == "zigzag":
        x = u / rng.uniform(0.14, 0.18)
        rise = rng.uniform(0.09, 0.11) * 2 * from_middle(x)
        return mix(base, accent, band((v + rise) / (period * 1.1), rng.uniform(0.42, 0.55), soft))
    if name == "floral":
        return canvas.sample(_floral_tile(rng, colors), u, v)
    if name == "colour block":
        return _color_blocks(canvas, rng, colors, on_sleeve)
    cloth = base * (1 + rng.uniform(0, 0.03) * noise(rng, (80, 80), canvas.size))[..., None]
    if name == "graphic print":
        tile = _graphic_tile(rng, colors)
        side = tile.shape[0] / TILE_SCALE
        x, y = canvas.u + side / 2, canvas.v - max(cut.depth + 0.02, 0.18)
        inside = (x > 0) & (x < side) & (y > 0) & (y < side) & (on_sleeve < 0.5)
        ink = canvas.sample(tile, x, y)
        cloth = mix(cloth, ink[..., :3], ink[..., 3] * inside)
    return cloth


def _color_blocks(canvas, rng, colors, on_sleeve):
    """Two or three large areas of colour: a yoke, halves, a slant or a wide band; the sleeves in one of them."""
    u, v = canvas.u, canvas.v
    soft = 1.3 / canvas.pixels_per_unit
    kind = rng.choice(["yoke", "halves", "slant", "band"])
    if kind == "yoke":
        edge = v - rng.uniform(0.28, 0.42)
    elif kind == "halves":
        edge = u * rng.choice([-1, 1])
    elif kind == "slant":
        edge = v - rng.uniform(0.32, 0.42) + u * rng.choice([-1, 1]) * rng.uniform(0.5, 0.9)
    else:
        edge = rng.uniform(0.08, 0.11) - np.abs(v - rng.uniform(0.36, 0.44))
    cloth = mix(colors.base, colors.accent, step(edge, soft))
    if kind == "yoke" and rng.random() < 0.5:
        cloth = mix(cloth, colors.third, step(v - rng.uniform(0.55, 0.6), soft))
    sleeve = [colors.base, colors.accent, colors.third][rng.integers(3)]
    return mix(cloth, sleeve, on_sleeve)


def _floral_tile(rng, colors):
    """A tile [h, w, 3] of flowers and leaves that repeats without a seam."""
    side, cells = 96, 3
    scale = side * SUPERSAMPLE
    tile = Image.new("RGB", (scale, scale), pixel(colors.base))
    draw = ImageDraw.Draw(tile)
    leaf = mix(colors.third, np.float32([0.25, 0.45, 0.2]), 0.5)
    heart = mix(colors.base, np.float32([1, 0.85, 0.2]), 0.7)

    def blob(center, radii, angle, color):
        points = ellipse(center, radii, angle, steps=12)
        low, high = points.min(0), points.max(0)
        shifts = [[s for s in (-scale, 0, scale) if low[k] + s < scale and high[k] + s > 0] for k in (0, 1)]
        for dx in shifts[0]:
            for dy in shifts[1]:
                draw.polygon((points + np.array([dx, dy])).ravel().tolist(), fill=pixel(color))

    for row in range(cells):
        for column in range(cells):
            center = (np.array([column + 0.5 * (row % 2), row]) + rng.uniform(0.3, 0.7, 2)) * scale / cells
            radius, turn = rng.uniform(0.1, 0.125) * scale, rng.uniform(0, 2 * np.pi)
            petal_color = colors.accent if rng.random() < 0.7 else mix(colors.accent, colors.third, 0.6)
            for angle in turn + np.array([0.6, 3.4]):
                blob(center + direction(angle) * radius * 1.3, (radius * 0.6, radius * 0.22), angle, leaf)
            for angle in turn + np.arange(5) * 2 * np.pi / 5:
                blob(center + direction(angle) * radius * 0.6, (radius * 0.48, radius * 0.36), angle, petal_color)
            blob(center, (radius * 0.3, radius * 0.3), 0, heart)
    return np.asarray(tile.reduce(SUPERSAMPLE), np.float32) / 255


def _graphic_tile(rng, colors):
    """A print for the chest, [h, w, 4] with alpha: a star, a heart, a sun, mountains, a bolt or a word."""
    side = int(rng.uniform(0.3, 0.34) * TILE_SCALE)
    scale = side * SUPERSAMPLE
    tile = Image.new("RGBA", (scale, scale))
    draw = ImageDraw.Draw(tile)
    accent, third = pixel(colors.accent, 255), pixel(colors.third, 255)

    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    disc = ellipse((0.5, 0.5), (0.48, 0.48))
    star = np.where(np.arange(10) % 2, 0.19, 0.45) * direction(np.arange(10) * np.pi / 5 - np.pi / 2)  # [2, 10]
    x, y = 16 * np.sin(t) ** 3, 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    heart = np.stack([0.5 + x / 35, 0.46 - y / 35], 1)
    rays = np.where(np.arange(60) % 5 < 2, 0.48, 0.33) * direction(t)
    peaks = [(0.1, 0.75), (0.38, 0.3), (0.55, 0.55), (0.66, 0.42), (0.9, 0.75)]
    bolt = [(0.56, 0.1), (0.25, 0.56), (0.46, 0.56), (0.4, 0.92), (0.74, 0.4), (0.52, 0.4)]
    shapes = {  # outlines in a square of side 1, one over the other
        "star": [(disc, third), (0.5 + star.T, accent)],
        "heart": [(heart, accent)],
        "sun": [(0.5 + rays.T, accent), (ellipse((0.5, 0.5), (0.25, 0.25)), third)],
        "mountains": [(disc, accent), (ellipse((0.66, 0.32), (0.09, 0.09)), third), (peaks, third)],
        "bolt": [(disc, accent), (bolt, third)],
        "word": [],
    }
    kind = rng.choice(list(shapes))
    for points, fill in shapes[kind]:
        draw.polygon((np.asarray(points, float) * scale).ravel().tolist(), fill=fill)
    if kind == "word":
        draw.rounded_rectangle([0, scale * 0.2, scale - 1, scale * 0.8], scale * 0.1, fill=accent)
        word = str(rng.choice(["SUN", "SEA", "YES", "WOW", "HEY", "ART"]))
        draw.text((scale / 2, scale / 2), word, fill=third, font=ImageFont.load_default(scale * 0.42), anchor="mm")
    return np.asarray(tile.reduce(SUPERSAMPLE), np.float32) / 255
