"""Scene-free mathematics: encodings, fields, samplers, compositing.  Knows no file and no loss."""
