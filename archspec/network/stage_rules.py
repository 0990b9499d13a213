"""What the parts of one stage ask of each other."""

from archspec.spec.schema import StageSpec
from blocks.base import SpecError
from blocks.wrappers.block import ConvBlockSpec


def check_tap(stage: StageSpec, *, last: bool) -> None:
    """Refuse a last stage, or blocks of it, that nothing sees."""
    if last and stage.skip.tap == "none":
        raise SpecError(
            "'none' on the last stage leaves it without use",
            field="skip.tap",
            suggestion="use after or before_blocks",
        )
    built = stage.depth > 0 or stage.has_local
    dead = built or stage.post.kind != "none" or stage.norm != "none"
    if last and dead and stage.skip.tap == "before_blocks":
        raise SpecError(
            "'before_blocks' on the last stage leaves its blocks without use",
            field="skip.tap",
            suggestion="use after, or depth: 0 with no local, no post and no norm",
        )


def check_entry(stage: StageSpec) -> None:
    """Refuse a stride in the first block where there is none, or where something comes between."""
    if not stage.downsample.is_in_block:
        return
    needed = None
    if not isinstance(stage.block, ConvBlockSpec):
        needed = f"block.kind basic or plain, not {stage.block.kind!r}"
    elif stage.depth == 0:
        needed = "depth of at least 1, for the block that holds the stride"
    elif stage.local.kind != "none":
        needed = f"local.kind none, not {stage.local.kind!r}, which would come before the stride"
    elif stage.skip.tap == "before_blocks":
        needed = "skip.tap after, because the stage's grid starts in its first block"
    if needed is not None:
        raise SpecError(f"true needs {needed}", field="downsample.in_block")
