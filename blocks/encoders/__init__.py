"""Encoders of other libraries, in the place of stages of ours."""
