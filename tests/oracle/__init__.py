"""An independent reading of the design page `rules.md`: slow, naive, keeping everything for ever.

`clock`, `text`, `rules` and `model` are written from that page alone and import nothing of the system.
`draw` and `steps` make cases of a few bytes; `pair` plays them on the system and on the model, and compares.
"""
