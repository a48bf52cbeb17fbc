"""Pictures of nets: a box for each block, with the paths inside it, shapes and parameters."""

from striate.diagram.boxes import Box as Box
from striate.diagram.boxes import Step as Step
from striate.diagram.boxes import boxes as boxes
from striate.diagram.picture import draw as draw
