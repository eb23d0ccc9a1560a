"""A heat map over a photo: grey where it is 0, the colour of the map where it is hot, smooth between its places."""

import numpy as np
from PIL import Image

from csl.plots.heat_maps import overlaid


def test_a_photo_under_a_heat_map():
    photo = Image.new("RGB", (40, 20), (200, 100, 50))
    grey = photo.convert("L").getpixel((0, 0))
    heat = np.zeros((2, 4))
    assert np.unique(np.asarray(overlaid(photo, heat))).tolist() == [grey]
    heat[:, 3] = 1
    made = np.asarray(overlaid(photo, heat)).astype(int)
    assert made.shape == (20, 40, 3)
    assert (made[:, :10] == grey).all()
    hot = made[:, -1]
    expected = 0.25 * grey + 0.75 * 255 * np.array([0.940, 0.975, 0.131])  # the last colour of matplotlib's plasma
    np.testing.assert_allclose(hot, np.broadcast_to(expected, hot.shape), atol=2)
    assert (np.diff(made[10, 20:, 2]) <= 0).mean() > 0.8  # less and less blue
