"""What each stage may be told, and what it reports.

The params are also the sections of the settings file, so a default stated here is the default of
the system. Figures for Qwen3-14B on an RTX 3090 come from the first user's production runs.
"""

from contracts.params.data import (
    FetchMetrics,
    FetchParams,
    LabelMetrics,
    LabelParams,
    SnapshotMetrics,
    SnapshotParams,
    SplitMetrics,
    SplitParams,
)
from contracts.params.model import (
    GgufMetrics,
    GgufParams,
    MergeMetrics,
    MergeParams,
    TrainMetrics,
    TrainParams,
)
from contracts.params.service import (
    DeployMetrics,
    DeployParams,
    EvaluateMetrics,
    EvaluateParams,
    ReprocessMetrics,
    ReprocessParams,
    RestoreMetrics,
    RestoreParams,
    VerifyMetrics,
    VerifyParams,
)

__all__ = [
    "DeployMetrics",
    "DeployParams",
    "EvaluateMetrics",
    "EvaluateParams",
    "FetchMetrics",
    "FetchParams",
    "GgufMetrics",
    "GgufParams",
    "LabelMetrics",
    "LabelParams",
    "MergeMetrics",
    "MergeParams",
    "ReprocessMetrics",
    "ReprocessParams",
    "RestoreMetrics",
    "RestoreParams",
    "SnapshotMetrics",
    "SnapshotParams",
    "SplitMetrics",
    "SplitParams",
    "TrainMetrics",
    "TrainParams",
    "VerifyMetrics",
    "VerifyParams",
]
