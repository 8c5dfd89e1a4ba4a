"""A recipe: what a template means for one line and lane, worked out once instead of for every trigger."""

from dispatcher.catalog import Catalog
from dispatcher.kinds import lane_of
from dispatcher.partition import Partition, Shape
from dispatcher.template import CompiledContent, CompiledTemplate
from dispatcher.user import Kind


class Dish:
    """One channel of a recipe: what it renders, and what rules can tell its messages apart by (without a task)."""

    __slots__ = ("_shapes", "content", "kind")

    def __init__(self, content: CompiledContent, kind: Kind) -> None:
        self.content = content
        self.kind = kind
        self._shapes: dict[int, Shape] = {}

    def shape(self, partition: Partition, task: str | None) -> Shape:
        """`partition.shape` of such a message."""
        if task is not None:
            return partition.shape(self.kind._replace(task=task))
        shape = self._shapes.get(partition.id)
        if shape is None or shape.book is not partition.book:
            shape = self._shapes[partition.id] = partition.shape(self.kind)
        return shape


class Recipe:
    """`refusal`: why no trigger may use this template on this line, if so."""

    __slots__ = ("dishes", "lane", "refusal", "template", "ttl_s")

    def __init__(self, template: CompiledTemplate | None, line: str, lane: int, refusal: str | None) -> None:
        self.template = template
        self.lane = lane
        self.refusal = refusal
        self.ttl_s = template.ttl_s if template else 0.0
        self.dishes = {
            channel: Dish(content, Kind(channel, template.type, template.level, line, template.id, None))
            for channel, content in (template.contents.items() if template else ())
        }


def recipe_of(catalog: Catalog, template_id: str, line: str, lane: str | None) -> Recipe:
    """What the catalog says now of a template, used by a line, with a trigger's own `lane`."""
    template = catalog.templates.get(template_id)
    if template is None:
        return Recipe(None, line, 0, "unknown_template")
    refusal = None
    if template.status != "active":
        refusal = "template_not_active"
    elif line not in catalog.lines:
        refusal = "unknown_line"
    elif template.line is not None and template.line != line:
        refusal = "line_mismatch"
    return Recipe(template, line, lane_of(template.type, template.level, lane), refusal)
