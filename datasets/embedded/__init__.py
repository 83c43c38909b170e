"""The embedded scene and painting: everything runs on them, with no download."""
