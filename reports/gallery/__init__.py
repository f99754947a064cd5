"""Rendered examples of every report format, from invented submissions (`examples.py`), made by `build.py`."""
