"""What to cite: BibTeX for every environment, agent and table, and for the statistics.

Authors, venues and years are those of the docstrings of what is cited; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import nas_gym

from .content import Facts

OURS = "nasgym"
"""Key of this project, which stands for what is ours."""


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        kind: of BibTeX.
        authors: as BibTeX separates them.
        title: of the work.
        year: of the publication.
        venue: journal or proceedings; empty for a preprint.
        arxiv: number, empty where there is none.
    """

    kind: str
    authors: str
    title: str
    year: int
    venue: str = ""
    arxiv: str = ""

    def bibtex(self, key: str) -> str:
        """Return the entry as BibTeX."""
        fields = {"author": self.authors, "title": f"{{{self.title}}}", "year": str(self.year)}
        if self.venue:
            fields[_VENUES[self.kind]] = self.venue
        if self.arxiv:
            fields |= {"eprint": self.arxiv, "archivePrefix": "arXiv"}
        body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@{self.kind}{{{key},\n{body}\n}}\n"

    def words(self) -> str:
        """Return the entry as a line of text."""
        authors = self.authors.replace(" and others", " et al.").replace(" and ", "; ")
        for tex, letter in _LETTERS.items():
            authors = authors.replace(tex, letter)
        parts = [authors.strip("{}").rstrip("."), self.title, self.venue]
        return (
            ". ".join(part for part in parts if part)
            + f", {self.year}"
            + (f", arXiv {self.arxiv}." if self.arxiv else ".")
        )


_LETTERS = {r"{\'a}": "á", r"{\'o}": "ó", r"{\"o}": "ö", r"{\~n}": "ñ", r"{\c{c}}": "ç"}
_VENUES = {"inproceedings": "booktitle", "article": "journal", "phdthesis": "school", "misc": "howpublished"}

ENTRIES: Mapping[str, Entry] = MappingProxyType(
    {
        OURS: Entry("misc", "{The nas-gym developers}", "nas-gym", 2026, f"Version {nas_gym.__version__}"),
        # environments and tables
        "dong2020nasbench201": Entry(
            "inproceedings",
            "Dong, X. and Yang, Y.",
            "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
            2020,
            "ICLR",
            "2001.00326",
        ),
        "dong2021natsbench": Entry(
            "article",
            "Dong, X. and Liu, L. and Musial, K. and Gabrys, B.",
            "NATS-Bench: Benchmarking NAS Algorithms for Architecture Topology and Size",
            2021,
            "TPAMI",
            "2009.00437",
        ),
        "su2021mcts": Entry(
            "inproceedings",
            "Su, X. and Huang, T. and Li, Y. and You, S. and Wang, F. and Qian, C. and Zhang, C. and Xu, C.",
            "Prioritized Architecture Sampling with Monto-Carlo Tree Search",
            2021,
            "CVPR",
            "2103.11922",
        ),
        "cassimon2024scalable": Entry(
            "article",
            "Cassimon, A. and Mercelis, S. and Mets, K.",
            "Scalable reinforcement learning-based neural architecture search",
            2024,
            "Neural Computing and Applications",
            "2410.01431",
        ),
        "baker2017metaqnn": Entry(
            "inproceedings",
            "Baker, B. and Gupta, O. and Naik, N. and Raskar, R.",
            "Designing Neural Network Architectures using Reinforcement Learning",
            2017,
            "ICLR",
            "1611.02167",
        ),
        "zhong2018blockqnn": Entry(
            "inproceedings",
            "Zhong, Z. and Yan, J. and Wu, W. and Shao, J. and Liu, C.-L.",
            "Practical Block-wise Neural Network Architecture Generation",
            2018,
            "CVPR",
            "1708.05552",
        ),
        "cai2018eas": Entry(
            "inproceedings",
            "Cai, H. and Chen, T. and Zhang, W. and Yu, Y. and Wang, J.",
            "Efficient Architecture Search by Network Transformation",
            2018,
            "AAAI",
            "1707.04873",
        ),
        "chen2016net2net": Entry(
            "inproceedings",
            "Chen, T. and Goodfellow, I. and Shlens, J.",
            "Net2Net: Accelerating Learning via Knowledge Transfer",
            2016,
            "ICLR",
            "1511.05641",
        ),
        # agents
        "bergstra2012random": Entry(
            "article", "Bergstra, J. and Bengio, Y.", "Random Search for Hyper-Parameter Optimization", 2012, "JMLR"
        ),
        "li2019random": Entry(
            "inproceedings",
            "Li, L. and Talwalkar, A.",
            "Random Search and Reproducibility for Neural Architecture Search",
            2019,
            "UAI",
        ),
        "real2019regularized": Entry(
            "inproceedings",
            "Real, E. and Aggarwal, A. and Huang, Y. and Le, Q. V.",
            "Regularized Evolution for Image Classifier Architecture Search",
            2019,
            "AAAI",
            "1802.01548",
        ),
        "white2021local": Entry(
            "inproceedings",
            "White, C. and Nolen, S. and Savani, Y.",
            "Exploring the Loss Landscape in Neural Architecture Search",
            2021,
            "UAI",
            "2005.02960",
        ),
        "denottelander2021local": Entry(
            "inproceedings",
            "Den Ottelander, T. and Dushatskiy, A. and Virgolin, M. and Bosman, P. A. N.",
            "Local Search is a Remarkably Strong Baseline for Neural Architecture Search",
            2021,
            "EMO",
            "2004.08996",
        ),
        "kocsis2006uct": Entry(
            "inproceedings", r"Kocsis, L. and Szepesv{\'a}ri, C.", "Bandit Based Monte-Carlo Planning", 2006, "ECML"
        ),
        "negrinho2017deeparchitect": Entry(
            "misc",
            "Negrinho, R. and Gordon, G.",
            "DeepArchitect: Automatically Designing and Training Deep Architectures",
            2017,
            arxiv="1704.08792",
        ),
        "finnsson2008mast": Entry(
            "inproceedings",
            r"Finnsson, H. and Bj{\"o}rnsson, Y.",
            "Simulation-Based Approach to General Game Playing",
            2008,
            "AAAI",
        ),
        "chaslot2008parallel": Entry(
            "misc",
            "Chaslot, G. M. J.-B. and Winands, M. H. M. and van den Herik, H. J.",
            "Parallel Monte-Carlo Tree Search",
            2008,
        ),
        "jamieson2016halving": Entry(
            "inproceedings",
            "Jamieson, K. and Talwalkar, A.",
            "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
            2016,
            "AISTATS",
            "1502.07943",
        ),
        "li2020asha": Entry(
            "inproceedings",
            "Li, L. and Jamieson, K. and Rostamizadeh, A. and Gonina, E. and Ben-tzur, J. and Hardt, M. and Recht, B. "
            "and Talwalkar, A.",
            "A System for Massively Parallel Hyperparameter Tuning",
            2020,
            "MLSys",
            "1810.05934",
        ),
        "li2018hyperband": Entry(
            "article",
            "Li, L. and Jamieson, K. and DeSalvo, G. and Rostamizadeh, A. and Talwalkar, A.",
            "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization",
            2018,
            "JMLR",
        ),
        "watkins1989learning": Entry("misc", "Watkins, C. J. C. H.", "Learning from Delayed Rewards", 1989),
        "zoph2017neural": Entry(
            "inproceedings",
            "Zoph, B. and Le, Q. V.",
            "Neural Architecture Search with Reinforcement Learning",
            2017,
            "ICLR",
            "1611.01578",
        ),
        "raffin2021stablebaselines3": Entry(
            "article",
            "Raffin, A. and others",
            "Stable-Baselines3: Reliable Reinforcement Learning Implementations",
            2021,
            "JMLR",
        ),
        "schulman2017proximal": Entry(
            "misc", "Schulman, J. and others", "Proximal Policy Optimization Algorithms", 2017, arxiv="1707.06347"
        ),
        "mnih2016asynchronous": Entry(
            "misc",
            "Mnih, V. and others",
            "Asynchronous Methods for Deep Reinforcement Learning",
            2016,
            arxiv="1602.01783",
        ),
        "mnih2015human": Entry(
            "article", "Mnih, V. and others", "Human-level control through deep reinforcement learning", 2015, "Nature"
        ),
        "huang2022closer": Entry(
            "inproceedings",
            r"Huang, S. and Onta{\~n}{\'o}n, S.",
            "A Closer Look at Invalid Action Masking in Policy Gradient Algorithms",
            2022,
            "FLAIRS",
            "2006.14171",
        ),
        # statistics
        "agarwal2021precipice": Entry(
            "inproceedings",
            "Agarwal, R. and Schwarzer, M. and Castro, P. S. and Courville, A. and Bellemare, M. G.",
            "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
            2021,
            "NeurIPS",
            "2108.13264",
        ),
        "yang2020frustratingly": Entry(
            "inproceedings",
            r"Yang, A. and Esperan{\c{c}}a, P. M. and Carlucci, F. M.",
            "NAS evaluation is frustratingly hard",
            2020,
            "ICLR",
            "1912.12522",
        ),
        "holm1979simple": Entry(
            "article",
            "Holm, S.",
            "A Simple Sequentially Rejective Multiple Test Procedure",
            1979,
            "Scandinavian Journal of Statistics",
        ),
    }
)
"""Entries by key."""

ENVIRONMENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "NAS-Cell-v0": ("dong2020nasbench201", "dong2021natsbench"),
        "NAS-Cell-Train-v0": ("dong2020nasbench201", "baker2017metaqnn"),
        "NAS-Size-v0": ("dong2021natsbench",),
        "NAS-Macro-v0": ("su2021mcts",),
        "NAS-Cell-Improve-v0": ("cassimon2024scalable", "dong2020nasbench201"),
        "NAS-MetaQNN-v0": ("baker2017metaqnn",),
        "NAS-MetaQNN-Table-v0": ("baker2017metaqnn",),
        "NAS-BlockQNN-v0": ("zhong2018blockqnn",),
        "NAS-EAS-v0": ("cai2018eas", "chen2016net2net"),
    }
)
"""Keys by id of the environment; all are implemented by this project, which is always cited."""

_SB3 = "raffin2021stablebaselines3"

AGENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "random_search": ("bergstra2012random", "li2019random"),
        "evolution": ("real2019regularized",),
        "local_search": ("white2021local", "denottelander2021local"),
        "uct": ("kocsis2006uct", "negrinho2017deeparchitect", "finnsson2008mast", "chaslot2008parallel"),
        "successive_halving": ("jamieson2016halving", "li2020asha", "li2018hyperband"),
        "q_learning": ("watkins1989learning", "baker2017metaqnn", "zhong2018blockqnn"),
        "reinforce": ("zoph2017neural",),
        "eas": ("cai2018eas",),
        "sb3:ppo": (_SB3, "schulman2017proximal"),
        "sb3:a2c": (_SB3, "mnih2016asynchronous"),
        "sb3:dqn": (_SB3, "mnih2015human"),
        "sb3:maskable_ppo": (_SB3, "huang2022closer", "schulman2017proximal"),
        "sb3:masked_dqn": (_SB3, "mnih2015human", "huang2022closer"),
        "trained policy": ("cassimon2024scalable", "huang2022closer"),
        "random edits": (OURS,),
    }
)
"""Keys by name of the agent, or of the method where it is none."""

TABLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "digits": (OURS,),
        "metaqnn-digits": (OURS,),
        "cifar10_16px": (OURS,),
        **dict.fromkeys(("nats-cifar10", "nats-cifar100"), ("dong2021natsbench",)),
    }
)
"""Keys by name of the table."""

STATISTICS = ("agarwal2021precipice", "yang2020frustratingly", "holm1979simple")


@dataclass(frozen=True)
class Citations:
    """What a record cites.

    Attributes:
        environments: keys by id.
        agents: keys by name of the method.
        tables: keys by name.
        unknown: what nothing is known of, in words.
    """

    environments: Mapping[str, tuple[str, ...]]
    agents: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, tuple[str, ...]]
    unknown: tuple[str, ...]

    @classmethod
    def of(cls, facts: Facts) -> Citations:
        """Return what everything used by a record cites."""
        environments = dict.fromkeys(task["env"] for task in facts.tasks.values())
        tables = dict.fromkeys(str(task["table"]) for task in facts.tasks.values() if task["table"] is not None)
        agents = {method: method if agent is None else agent for method, agent in facts.methods.items()}
        unknown = [f"environment {name}" for name in environments if name not in ENVIRONMENTS]
        unknown += [f"agent {agent}" for agent in dict.fromkeys(agents.values()) if agent not in AGENTS]
        unknown += [f"table {name}" for name in tables if name not in TABLES]
        return cls(
            {name: ENVIRONMENTS.get(name, ()) for name in environments},
            {method: AGENTS.get(agent, ()) for method, agent in agents.items()},
            {name: TABLES.get(name, ()) for name in tables},
            tuple(unknown),
        )

    def keys(self, statistics: bool) -> tuple[str, ...]:
        """Return all keys, this project's first."""
        groups = (*self.environments.values(), *self.tables.values(), *self.agents.values())
        return tuple(dict.fromkeys((OURS, *(key for group in groups for key in group), *(STATISTICS * statistics))))


def bibtex(keys: Iterable[str], unknown: Iterable[str] = ()) -> str:
    """Return entries as a BibTeX file; what nothing is known of is named in comments."""
    remarks = "".join(f"% no entry is known for the {name}: add its own\n" for name in unknown)
    return remarks + ("\n" if remarks else "") + "\n".join(ENTRIES[key].bibtex(key) for key in keys)
