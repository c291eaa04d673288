"""Models to SavedModels that take strings: export, check and a local server."""
