"""The networks themselves, as torch modules. Every module here imports torch, so sections import them in `build`."""
