"""A plain z-buffer, which shares nothing with the renderers under test."""

import numpy as np


def project(view, points):
    """Column, row and depth (N, 3) of ``points (N, 3)`` in the image of a view."""
    c2w = view.c2w.double().numpy()
    right, up, back = ((points - c2w[:, 3]) @ c2w[:, :3]).T
    depth = -back
    return np.stack([view.cx + view.fx * right / depth, view.cy - view.fy * up / depth, depth], 1)


def rasterised(view, vertices, faces, values=None, both_sides=True):
    """What a pinhole camera sees of a mesh at its pixels' centres.

    Args:
        vertices, faces: (V, 3) world and (F, 3), counter-clockwise from outside.
        values: (V, C) to interpolate, or None.
        both_sides: also triangles that are turned away.

    Returns:
        Depth along the optical axis (H, W), infinite where there is nothing, and with ``values``
        also these (H, W, C).
    """
    height, width = view.height, view.width
    corners = project(view, vertices)[faces]
    xy, depth = corners[..., :2], corners[..., 2]
    a, b = xy[:, 1] - xy[:, 0], xy[:, 2] - xy[:, 0]
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    keep = (depth.min(1) > 1e-3) & (np.abs(area) > 1e-12)
    if not both_sides:
        keep &= area < 0  # rows run downwards
    low = np.floor(xy.min(1)).astype(int)
    span = np.ceil(xy.max(1)).astype(int) - low
    keep &= (low < [width, height]).all(1) & (low + span > 0).all(1)
    order = np.flatnonzero(keep)
    nearest = np.full(height * width, np.inf)
    owner = np.zeros(height * width, int)
    weights = np.zeros((height * width, 3))
    for size in np.unique(span[order], axis=0):
        group = order[(span[order] == size).all(1)]
        for i in range(size[0]):
            for j in range(size[1]):
                place = low[group] + [i, j]
                arm = place + 0.5 - xy[group, 0]
                v = (arm[:, 0] * b[group, 1] - arm[:, 1] * b[group, 0]) / area[group]
                w = (a[group, 0] * arm[:, 1] - a[group, 1] * arm[:, 0]) / area[group]
                inside = (v >= 0) & (w >= 0) & (v + w <= 1)
                inside &= ((place >= 0) & (place < [width, height])).all(1)
                own = group[inside]
                shares = np.stack([1 - v - w, v, w], 1)[inside] / depth[own]
                z = 1 / shares.sum(1)
                pixel = place[inside] @ [1, width]
                back = np.argsort(-z)  # the nearest is written last
                own, shares, z, pixel = (
                    own[back],
                    shares[back] * z[back, None],
                    z[back],
                    pixel[back],
                )
                front = z < nearest[pixel]
                nearest[pixel[front]] = z[front]
                # of several in one pixel the last one has been written
                best = front & (z == nearest[pixel])
                owner[pixel[best]], weights[pixel[best]] = own[best], shares[best]
    depth = nearest.reshape(height, width)
    if values is None:
        return depth
    shown = (weights[..., None] * values[faces[owner]]).sum(1)
    return depth, shown.reshape(height, width, -1)
