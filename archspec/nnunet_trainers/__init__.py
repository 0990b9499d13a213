"""The former place of `archspec.nnunet.trainers`, for a `nnUNet_extTrainer` that names it."""
