from setuptools import setup
from setuptools.command.egg_info import manifest_maker

# What goes into a source distribution; by default, half of the tests without what they need.
manifest_maker.template = ".manifest.in"

setup()
