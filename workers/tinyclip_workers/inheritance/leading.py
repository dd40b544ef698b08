"""Manual weight inheritance: a smaller student starts as the leading part of a larger model (METHOD section 7).

Blocks are identified by the numbers in their names, never by the order of a file's keys: safetensors sorts 0, 1, 10, 11, 2.
"""

import re
from collections.abc import Iterator, Mapping

import torch
from tinyclip.schemas.layouts import Layout
from torch import Tensor, nn

from tinyclip_workers.model.masks import Tower

NOT_INHERITED = frozenset({"logit_scale", "logit_bias"})
"""Tensors of the objective rather than of a tower: the student keeps its own."""

_BLOCK = re.compile(r"^(?P<stack>visual\.transformer\.resblocks|transformer\.resblocks|visual\.layer[1-4])\.(?P<block>\d+)\.")


class ImpossibleInheritance(ValueError):
    """A student that is deeper or larger than its parent, or of another kind.

    `field` is the place in a stage's `student` (for example `image.layers`), `value` its value; the message has the remedy.
    """

    def __init__(self, field: str, value: object, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.value = value
        self.message = message


def inherit_leading(
    student: nn.Module | Mapping[str, Tensor],
    teacher_state: Mapping[str, Tensor],
    student_layout: Layout,
    teacher_layout: Layout,
) -> dict[str, Tensor]:
    """Make a state dict for the student: every tensor is the leading slice of its source on every axis, values unscaled.

    Both states have open_clip's names; `student` gives names, shapes and types. Block i of the student comes from block
    i * (teacher blocks // student blocks), for a ResNet within each stage. Of q, k and v, the leading heads of each are taken.
    `logit_scale` stays the student's own. The teacher's tensors are copied, not shared.
    Raises ImpossibleInheritance.
    """
    check_inheritable(student_layout, teacher_layout)
    own = student.state_dict() if isinstance(student, nn.Module) else dict(student)
    sources = source_names(list(own), list(teacher_state))
    state: dict[str, Tensor] = {}
    for name, tensor in own.items():
        if name in NOT_INHERITED:
            state[name] = tensor.detach().clone()
            continue
        source = teacher_state.get(sources[name])
        if source is None:
            raise ImpossibleInheritance(
                name, sources[name], f"the model inherited from has no tensor {sources[name]}; it is of another architecture"
            )
        state[name] = leading_slice(name, source, tensor.shape).to(tensor.dtype)
    return state


def check_inheritable(student: Layout, teacher: Layout) -> None:
    """Raise ImpossibleInheritance for the first size in which the student exceeds the teacher."""
    for problem in inheritance_problems(student, teacher):
        raise problem


def inheritance_problems(student: Layout, teacher: Layout) -> Iterator[ImpossibleInheritance]:
    """Yield every size in which the student exceeds the teacher."""
    if student.image.kind != teacher.image.kind:
        yield ImpossibleInheritance(
            "image",
            student.image.kind,
            f"a {student.image.kind} cannot inherit from a {teacher.image.kind}; "
            "give layers as one number for a ViT and as four for a ResNet, or use inherit: none",
        )
        return
    if read_otherwise(student, teacher):
        yield ImpossibleInheritance(
            "image",
            student.image.kind,
            "towers like SigLIP's and towers like CLIP's cannot inherit from each other; give layers and widths instead of a "
            "preset, or use inherit: none",
        )
        return
    wanted_and_there = [
        ("embed_dim", student.embed_dim, teacher.embed_dim),
        ("image.width", student.image.width, teacher.image.width),
        ("image.image_size", student.image.image_size, teacher.image.image_size),
        ("image.patch_size", student.image.patch_size or 0, teacher.image.patch_size or 0),
        ("text.layers", student.text.layers, teacher.text.layers),
        ("text.width", student.text.width, teacher.text.width),
        ("text.context_length", student.text.context_length, teacher.text.context_length),
        ("text.vocab_size", student.text.vocab_size, teacher.text.vocab_size),
        *(("image.layers", own, there) for own, there in zip(student.image.layers, teacher.image.layers, strict=True)),
    ]
    for field, wanted, there in wanted_and_there:
        if wanted > there:
            yield ImpossibleInheritance(
                field,
                wanted,
                f"{wanted} is more than the {there} of the model it inherits from; give at most {there}, or use inherit: none",
            )
    yield from _branch_problems("image", student.image.heads, student.image.mlp, teacher.image.heads, teacher.image.mlp)
    yield from _branch_problems("text", student.text.heads, student.text.mlp, teacher.text.heads, teacher.text.mlp)
    yield from _siglip_problems(student, teacher)


def read_otherwise(student: Layout, teacher: Layout) -> bool:
    """Return whether two models read their inputs differently, as SigLIP's and CLIP's towers do."""
    pooled = [model.image.pool is not None for model in (student, teacher)]
    return pooled[0] != pooled[1] or student.text.bidirectional != teacher.text.bidirectional


def _siglip_problems(student: Layout, teacher: Layout) -> Iterator[ImpossibleInheritance]:
    """Yield what towers like SigLIP's need beside the sizes of all towers."""
    own, there = student.image.pool, teacher.image.pool
    if own is not None and there is not None:
        for unit, wanted, given in (("heads", own.heads, there.heads), ("MLP units", own.mlp, there.mlp)):
            if wanted > given:
                message = f"its attention pooling would have {wanted} {unit}, that of the model it inherits from has {given}"
                yield ImpossibleInheritance("image.width", student.image.width, f"{message}; make the student narrower")
    length = teacher.text.context_length
    if student.text.bidirectional and student.text.context_length != length:
        message = f"a text tower that reads its last token needs the {length} tokens of the model it inherits from; leave it out"
        yield ImpossibleInheritance("text.context_length", student.text.context_length, message)


def _branch_problems(
    tower: str, heads: list[int] | None, mlp: list[int] | None, teacher_heads: list[int] | None, teacher_mlp: list[int] | None
) -> Iterator[ImpossibleInheritance]:
    """Yield the first block with more heads, and the first with a wider MLP, than the block that it inherits from."""
    for field, own, there in (("heads", heads, teacher_heads), ("mlp_ratio", mlp, teacher_mlp)):
        if own is None or there is None or len(own) > len(there):
            continue
        for block, wanted in enumerate(own):
            source = source_block(block, len(own), len(there))
            if wanted > there[source]:
                unit = "heads" if field == "heads" else "MLP units"
                yield ImpossibleInheritance(
                    f"{tower}.{field}",
                    wanted,
                    f"block {block} has {wanted} {unit}, but block {source} of the model it "
                    f"inherits from has {there[source]}; make the student smaller, or use inherit: none",
                )
                break


def source_block(block: int, blocks: int, teacher_blocks: int) -> int:
    """Return the teacher's block for a student's block: evenly spaced from 0 (12 to 6: 0, 2, 4, …; 12 to 9: 0 to 8)."""
    return block * (teacher_blocks // blocks)


def leading_blocks(student: Layout, teacher: Layout) -> dict[Tower, list[int]]:
    """Return the numbers of the teacher's blocks that `inherit_leading` takes, of each transformer tower."""
    depths: dict[Tower, tuple[int, int]] = {"text": (student.text.layers, teacher.text.layers)}
    if student.is_vit:
        depths["image"] = (student.image.layers[0], teacher.image.layers[0])
    return {tower: [source_block(block, own, there) for block in range(own)] for tower, (own, there) in depths.items()}


def source_names(names: list[str], teacher_names: list[str]) -> dict[str, str]:
    """Map each of the student's tensors to the teacher's tensor that it comes from."""
    depths, teacher_depths = _depths(names), _depths(teacher_names)
    sources: dict[str, str] = {}
    for name in names:
        found = _BLOCK.match(name)
        if found is None:
            sources[name] = name
            continue
        stack, block = found["stack"], int(found["block"])
        there = teacher_depths.get(stack, 0)
        if depths[stack] > there:
            raise ImpossibleInheritance(
                "text.layers" if stack.startswith("transformer") else "image.layers",
                depths[stack],
                f"{stack} has {depths[stack]} blocks, the model it inherits from {there}; "
                f"give at most {there}, or use inherit: none",
            )
        source = source_block(block, depths[stack], there)
        sources[name] = f"{stack}.{source}.{name[found.end() :]}"
    return sources


def leading_slice(name: str, source: Tensor, shape: torch.Size) -> Tensor:
    """Copy the leading `shape` of `source`; for attn.in_proj, the leading heads of q, k and v each.

    (3, heads, h, d) and (3, heads * h, d) have the same leading part, so the head width does not matter.
    Raises ImpossibleInheritance naming the tensor, the axis and both sizes.
    """
    if ".attn.in_proj_" in name:
        thirds = source.reshape(3, source.shape[0] // 3, *source.shape[1:])
        wanted = torch.Size((3, shape[0] // 3, *shape[1:]))
        return leading_slice(name.replace("in_proj_", "q/k/v rows of in_proj_"), thirds, wanted).reshape(shape)
    if source.dim() != len(shape):
        raise ImpossibleInheritance(
            name, tuple(shape), f"has shape {tuple(shape)}, but the tensor inherited from {tuple(source.shape)}"
        )
    for axis, (wanted_size, size) in enumerate(zip(shape, source.shape, strict=True)):
        if wanted_size > size:
            raise ImpossibleInheritance(
                name,
                wanted_size,
                f"axis {axis} has {wanted_size} entries in the student and {size} in the model it "
                "inherits from; make the student smaller, or use inherit: none",
            )
    return source.detach()[tuple(slice(size) for size in shape)].clone()


def _depths(names: list[str]) -> dict[str, int]:
    """Count the blocks of each stack (tower, or stage of a ResNet)."""
    depths: dict[str, int] = {}
    for name in names:
        if found := _BLOCK.match(name):
            depths[found["stack"]] = max(depths.get(found["stack"], 0), int(found["block"]) + 1)
    return depths
