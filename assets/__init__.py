"""A trained field as files that other programs read: mesh, volume, cameras, weights."""
