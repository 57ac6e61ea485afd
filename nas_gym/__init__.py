"""Neural architecture search as Gymnasium environments.

>>> import gymnasium as gym
>>> import nas_gym
>>> env = gym.make("NAS-Cell-v0", evaluator="synthetic")

Importing this package registers the environments and loads neither torch nor a table.
"""

from nas_gym.errors import NASGymError
from nas_gym.evaluators import EVALUATORS
from nas_gym.networks import NETWORKS
from nas_gym.objectives import OBJECTIVES
from nas_gym.registration import ENVIRONMENTS, register_all
from nas_gym.search_spaces import SEARCH_SPACES
from nas_gym.tables.format import TABLES

__version__ = "0.1.0"

register_all()

__all__ = [
    "ENVIRONMENTS",
    "EVALUATORS",
    "NETWORKS",
    "OBJECTIVES",
    "SEARCH_SPACES",
    "TABLES",
    "NASGymError",
    "__version__",
]
