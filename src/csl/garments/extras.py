"""Belts and pockets, and things that hide a part of the garment."""

import numpy as np
from numpy.random import Generator

from csl.garments.canvas import Canvas, step
from csl.garments.colors import WOODS, Colors, any_color, mix, rgb
from csl.garments.cut import Cut
from csl.garments.fabric import PATTERNS
from csl.garments.outlines import bezier, direction, ellipse, rectangle


def draw_extras(canvas: Canvas, rng: Generator, cut: Cut, colors: Colors, pattern: int, person: bool) -> None:
    """Draw a belt or a pocket, or neither, and at most one thing that hides a part of the garment.

    `pattern` is an index into `PATTERNS`: a print has neither belt nor pocket over it. Only a `person` has hair.
    """
    if PATTERNS[pattern] != "graphic print":
        if cut.dress and rng.random() < 0.45:
            _draw_belt(canvas, cut, colors)
        elif rng.random() < 0.15:
            _draw_pocket(canvas, rng)
    things = [_draw_strap, _draw_branch, _draw_card, _draw_scarf, _draw_foreground] + [_draw_hair] * 2 * person
    if rng.random() < 0.4:
        things[rng.integers(len(things))](canvas, rng, cut, colors)


def _draw_belt(canvas, cut, colors):
    """A belt around the waist, with a buckle."""
    belt = canvas.fill(rectangle(-0.3, 0.48, 0.3, 0.52)) * canvas.fill(cut.torso())
    canvas.shadow(belt, 1.5, 0.3)
    canvas.paint(belt, colors.trim * 0.85)
    buckle = ellipse((0, 0.5), (0.025, 0.022), steps=4)
    canvas.paint(canvas.stroke(0.009, [*buckle, buckle[0]]), np.float32([0.9, 0.8, 0.5]))


def _draw_pocket(canvas, rng):
    """The outline of a pocket on one side of the chest."""
    x, y = rng.choice([-1, 1]) * 0.115, rng.uniform(0.25, 0.28)
    top_left, top_right, right, left = rectangle(x - 0.04, y, x + 0.04, y + 0.075)
    outline = [top_left, top_right, right, (x, right[1] + 0.02), left, top_left]
    canvas.darken(canvas.stroke(0.008, outline), 0.4)


def _draw_strap(canvas, rng, cut, colors):
    """The strap of a bag, from one shoulder to the other hip."""
    side = rng.choice([-1, 1])
    top, bottom = cut.shoulder_point(0.2) * [side, 1], (-side * 0.22, cut.length + 0.03)
    strap = canvas.stroke(rng.uniform(0.025, 0.045), bezier(top, (side * 0.02, 0.33), bottom))
    canvas.shadow(strap, 1.5, 0.4)
    leather = mix(rgb(rng.choice(WOODS)), np.float32([0.1, 0.07, 0.05]), rng.uniform(0.2, 0.9))
    canvas.paint(strap, leather, canvas.volume(strap, 1.2, 0.3))


def _draw_branch(canvas, rng, cut, colors):
    """A leafy branch that reaches in from a lower corner."""
    side = rng.choice([-1, 1])
    tip = side * rng.uniform(0.05, 0.25), rng.uniform(0.4, 0.6)
    stem = bezier((side * 0.55, 0.85), (side * 0.3, 0.75), tip, steps=9)
    green = mix(np.float32([0.16, 0.36, 0.2]), np.float32([0.5, 0.6, 0.3]), rng.random())
    leaves = []
    for k in range(1, 9):
        along = stem[k] - stem[k - 1]
        for turn in (-0.8, 0.8):
            angle = np.arctan2(along[1], along[0]) + turn
            center = stem[k] + 0.045 * direction(angle)
            leaves.append(ellipse(center, (0.048, 0.018), angle, 14))
    alpha = np.maximum(canvas.fill(*leaves), canvas.stroke(0.009, stem))
    canvas.shadow(alpha, 2.5, 0.4)
    canvas.paint(alpha, green, canvas.volume(alpha, 1.5, 0.4))


def _draw_card(canvas, rng, cut, colors):
    """A paper tag or card with a few printed lines."""
    center = np.array([rng.uniform(-0.25, 0.25), rng.uniform(0.45, 0.7)])
    angle = rng.uniform(-0.5, 0.5)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    card = canvas.fill(rectangle(-0.06, -0.08, 0.06, 0.08) @ turn + center)
    canvas.shadow(card, 2.5, 0.45)
    canvas.paint(card, mix(colors.third, np.float32([1, 1, 0.97]), 0.85))
    heights = (-0.045, -0.015, 0.015, 0.045)
    lines = [np.array([(-0.04, y), (rng.uniform(0.0, 0.04), y)]) @ turn + center for y in heights]
    canvas.paint(canvas.stroke(0.01, *lines) * 0.7, colors.base * 0.5)


def _draw_scarf(canvas, rng, cut, colors):
    """A scarf that hangs down over one or both shoulders beside the neck."""
    sides = (-1, 1) if rng.random() < 0.4 else (rng.choice([-1, 1]),)
    cloth = any_color(rng)
    for side in sides:
        x, end = min(cut.opening + 0.06, 0.25), rng.uniform(0.4, 0.6)
        path = bezier((side * 0.14, -0.1), (side * x, 0.0), (side * (x + 0.03), 0.25), (side * (x - 0.03), end))
        alpha = canvas.stroke(0.075, path)
        canvas.shadow(alpha, 2.5, 0.4)
        canvas.paint(alpha, cloth, canvas.volume(alpha, 2, 0.4) * (0.94 + 0.06 * np.sin(canvas.u * 150)))


def _draw_hair(canvas, rng, cut, colors):
    """Long hair that falls over one shoulder or both."""
    tone = rgb(rng.choice(["1c1410", "3b2417", "5c3a21", "8a5a2b", "c09150", "7a2e1a"]))
    length = rng.uniform(0.15, 0.42)
    sides = (-1, 1) if rng.random() < 0.6 else (rng.choice([-1, 1]),)
    locks = []
    for side in sides:
        outer = bezier((side * 0.16, -0.4), (side * 0.25, 0.0), (side * 0.28, length * 0.7), (side * 0.2, length))
        inner = bezier((side * 0.1, -0.4), (side * 0.1, -0.1), (side * 0.21, length * 0.5), (side * 0.2, length))
        locks.append(np.concatenate([outer, inner[::-1]]))
    alpha = canvas.fill(*locks)
    canvas.shadow(alpha, 2.5, 0.4)
    strands = 0.92 + 0.16 * np.sin(canvas.u * 140 + 3 * np.sin(canvas.v * 9))
    canvas.paint(alpha, tone, canvas.volume(alpha, 2.5, 0.4) * strands)


def _draw_foreground(canvas, rng, cut, colors):
    """Something close to the lens and out of focus in a corner."""
    x, y = rng.choice([0.02, 0.98]), rng.uniform(0.55, 1.0)
    distance = np.hypot(canvas.x - x, canvas.y - y)
    tone = any_color(rng)
    canvas.paint(step(rng.uniform(0.15, 0.26) - distance, 0.12) * 0.85, tone)
