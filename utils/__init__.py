"""Small shared tools: errors, files, images, video, metrics.  Imports nothing above it."""
