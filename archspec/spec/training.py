"""The training recipe as a spec states it; `archspec/training` makes PyTorch parts of it."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from blocks.base import Added, ComponentSpec, Count, Positive

Optimizer = Literal["adamw", "adam", "sgd"]
OF_OPTIMIZERS = ("momentum", "betas")
"""Fields that not every optimizer has."""
Decay = Annotated[float, Field(ge=0, lt=1)]


def _none(value: object) -> object:
    return None if value == "none" else value


class TrainingSpec(ComponentSpec):
    """How the network is trained.

    `warmup` is the share of steps with a rising rate. `momentum` belongs to SGD, which is
    Nesterov's, `betas` to the others, and null leaves either out; adam puts the decay into the
    gradient, adamw does not. `decay` says what decays: `all` parameters, as in nnU-Net, or
    `matrices` alone, which leaves out biases, norms, layer scales, and the scans' `A_log`, `D` and
    bias of the time step. `epochs` and `iterations` (per epoch) are nnU-Net's; without them its
    trainer's numbers hold, 1000 and 250, and search trials count steps instead. `clip` bounds the
    norm of the gradient; `none` or null leaves it alone. `loss` is made of nnU-Net's own; for
    regions ce is binary.
    """

    optimizer: Optimizer = "adamw"
    lr: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=1e12)] = 1e-2
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.99
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    schedule: Literal["constant", "poly", "cosine"] = "poly"
    warmup: Annotated[
        float, Field(ge=0, lt=1, description="it is a share of the steps, e.g. 0.05")
    ] = 0.05
    epochs: Count | None = None
    iterations: Count | None = None
    clip: Annotated[
        Positive | None,
        BeforeValidator(_none, json_schema_input_type=Positive | Literal["none"] | None),
    ] = 12.0
    loss: Literal["dice_ce", "dice", "ce"] = "dice_ce"
    decay: Annotated[Literal["all", "matrices"], Added("all")] = "all"

    @field_validator(*OF_OPTIMIZERS, mode="before")
    @classmethod
    def _left_out(cls, value: object, info: ValidationInfo) -> object:
        assert info.field_name is not None
        return cls.model_fields[info.field_name].default if value is None else value

    @field_validator(*OF_OPTIMIZERS)
    @classmethod
    def _belongs(cls, value: object, info: ValidationInfo) -> object:
        """Refuse what the optimizer has not; the default may stand, as it does in plans."""
        assert info.field_name is not None
        default, optimizer = cls.model_fields[info.field_name].default, info.data.get("optimizer")
        if value != default and (optimizer == "sgd") is not (info.field_name == "momentum"):
            raise ValueError(f"must be left out with optimizer {optimizer}")
        return value
