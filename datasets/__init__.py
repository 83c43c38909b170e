"""Files -> Scene.  Knows formats and cameras; knows no network."""
