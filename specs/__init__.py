"""Bundled specs, one YAML file per network; shipped as archspec.specs."""
