"""Small shared tools: errors, images, video, metrics, checkpoints.  Imports nothing above it."""
