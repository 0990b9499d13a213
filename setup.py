"""Find the packages: the folders as they lie, and specs/ as `archspec.specs`."""

from setuptools import find_namespace_packages, find_packages, setup

own = find_packages(include=["archspec", "archspec.*", "blocks", "blocks.*", "search", "search.*"])
specs = [f"archspec.{name}" for name in find_namespace_packages(include=["specs", "specs.*"])]
setup(packages=own + specs, package_dir={"archspec.specs": "specs"})
