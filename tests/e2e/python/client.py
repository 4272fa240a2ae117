"""CRUD, watch and exec with the Python package `kubernetes`. Argument: a namespace with a running pod named `box`."""

import sys

from kubernetes import client, config, watch
from kubernetes.stream import stream

namespace = sys.argv[1]
config.load_kube_config()
core = client.CoreV1Api()

made = core.create_namespaced_config_map(
    namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="py"), data={"k": "v"})
)
core.patch_namespaced_config_map("py", namespace, {"data": {"k": "w"}})
assert core.read_namespaced_config_map("py", namespace).data == {"k": "w"}
try:
    made.data = {}
    core.replace_namespaced_config_map("py", namespace, made)
    raise AssertionError("a stale object was written")
except client.ApiException as error:
    assert error.status == 409, error
core.delete_namespaced_config_map("py", namespace)

seen = []
for event in watch.Watch().stream(
    core.list_namespaced_config_map,
    namespace,
    field_selector="metadata.name=py",
    resource_version=made.metadata.resource_version,
    timeout_seconds=30,
):
    seen.append(event["type"])
    if seen[-1] == "DELETED":
        break
assert seen == ["MODIFIED", "DELETED"], seen

said = stream(
    core.connect_get_namespaced_pod_exec, "box", namespace, command=["echo", "from python"],
    stderr=True, stdin=False, stdout=True, tty=False,
)
assert said == "from python\n", said
