"""What may be chosen at the top of dashboards."""

from typing import Final

from harness.dashboard.board import Variable
from harness.dashboard.promql import CLUSTER

NAMESPACE: Final = Variable("namespace", "Namespace", "label_values(jarvis_build_info, namespace)", multi=False)
NODE: Final = Variable("instance", "Node", f'label_values(jarvis_build_info{{job="jarvis-crdt", {CLUSTER}}}, instance)')
BACKEND: Final = Variable(
    "instance", "Backend", f'label_values(jarvis_build_info{{job="jarvis-backend", {CLUSTER}}}, instance)'
)
JOB: Final = Variable("job", "Job", f"label_values(jarvis_build_info{{{CLUSTER}}}, job)")
PROCESS: Final = Variable("instance", "Process", f'label_values(jarvis_build_info{{job=~"$job", {CLUSTER}}}, instance)')
