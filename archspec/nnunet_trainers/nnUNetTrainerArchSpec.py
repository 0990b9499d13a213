"""The trainer at its former place, where an exported `nnUNet_extTrainer` may look for it."""  # noqa: N999

from archspec.nnunet.trainers.nnUNetTrainerArchSpec import nnUNetTrainerArchSpec

__all__ = ["nnUNetTrainerArchSpec"]
