"""Poses, lenses, rays, camera paths, and the kinds of space that rays run through."""
