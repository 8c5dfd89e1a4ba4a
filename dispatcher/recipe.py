"""A recipe: what a template means for one line and lane, worked out once instead of for every trigger."""

from dispatcher.catalog import Catalog
from dispatcher.kinds import lane_of
from dispatcher.partition import Partition, Shape
from dispatcher.template import CompiledContent, CompiledTemplate
from dispatcher.user import Kind


class Dish:
    """One channel of a recipe: what it renders, and what rules can tell its messages apart by."""

    __slots__ = ("_shapes", "content", "kind")

    def __init__(self, content: CompiledContent, kind: Kind) -> None:
        self.content = content
        self.kind = kind
        self._shapes: dict[int, Shape] = {}

    def shape(self, partition: Partition) -> Shape:
        """`partition.shape` of such a message."""
        shape = self._shapes.get(partition.id)
        if shape is None or shape.book is not partition.book:
            shape = self._shapes[partition.id] = partition.shape(self.kind)
        return shape


class Recipe:
    """What `Admission` needs of a template, for one line and lane."""

    __slots__ = ("dishes", "lane", "template", "ttl_s")

    def __init__(self, template: CompiledTemplate, line: str, lane: int) -> None:
        self.template = template
        self.lane = lane
        self.ttl_s = template.ttl_s
        self.dishes = {
            channel: Dish(content, Kind(channel, template.type, template.level, line, template.id))
            for channel, content in template.contents.items()
        }


def recipe_of(catalog: Catalog, template_id: str, line: str, lane: str | None) -> Recipe | str:
    """What the catalog says now of a template, used by a line, with a trigger's own `lane`; or why it may not be."""
    template = catalog.templates.get(template_id)
    if template is None:
        return "unknown_template"
    if template.status != "active":
        return "template_not_active"
    if line not in catalog.lines:
        return "unknown_line"
    if template.line is not None and template.line != line:
        return "line_mismatch"
    return Recipe(template, line, lane_of(template.type, template.level, lane))
