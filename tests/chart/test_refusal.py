"""Bad values are refused by helm itself, whoever installs."""

from pathlib import Path
from typing import Any

import pytest

from harness.spec.config import ConfigError, read_config
from tests.chart.conftest import nested


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("infrastructure.node_count", -5, "minimum"),
        ("infrastructure.node_count", 11, "maximum"),
        ("infrastructure.node_count", "three", "string"),
        ("infrastructure.instance_type", "banana", "'small', 'medium', 'large', 'xlarge'"),
        ("infrastructure.nodes", 3, "nodes"),
        ("infrastructure.storage_size", "100", "pattern"),
        ("infrastructure.vpc_cidr", "10.0.0.0/33", "pattern"),
        ("infrastructure.vpc_cidr", "10.0.0.256/16", "pattern"),
        ("infrastructure.vpc_cidr", None, "missing property 'vpc_cidr'"),
        ("crdt", None, "missing property 'crdt'"),
        ("image.repository", "a: b", "pattern"),
        ("image.tag", ".hidden", "pattern"),
        ("storage_classes.premium", "a: b", "pattern"),
        ("infrastructure.availability_zones", [], "minItems"),
        ("deployment.resource_limits.cpu", "0m", "pattern"),
        ("crdt.gossip_protocol.fan_out", 3, "fan_out"),
        ("crdt.conflict_resolution", "vote", "'lww', 'multi_value', 'advanced'"),
        ("crdt.conflict_rules", [{"prefix": "price/"}], "missing property 'strategy'"),
        ("crdt.conflict_rules", [{"strategy": "vote"}], "lww|first_writer|max"),
        ("crdt.conflict_rules", [{"strategy": "shapes.Fullest"}], "pattern"),
        ("crdt.conflict_rules", [{"strategy": ".max"}], "pattern"),
        ("crdt.conflict_rules", [{"strategy": "max", "type": "aw_set"}], "'any', 'mv_register', 'map'"),
        ("crdt.conflict_rules", [{"strategy": "max", "prefix": "k" * 10**6}], "maxLength"),
        ("crdt.conflict_rules", [{"strategy": "priority", "sources": ["No_Label"]}], "pattern"),
        ("crdt.conflict_rules", [{"strategy": "max", "colour": "blue"}], "colour"),
        ("crdt.conflict_rules", [{"strategy": "max"}] * 10**4, "maxItems"),
        ("instance_presets.small", {"requests": {"gpu": "1"}}, "gpu"),
        ("plugins", [{"source": "x = 1"}], "missing property 'name'"),
        ("plugins", [{"name": "A plugin"}], "pattern"),
        ("plugins", [{"name": "a", "timeout_ms": 0}], "minimum"),
        ("plugins", [{"name": "a", "memory_mib": 1}], "minimum"),
        ("plugins", [{"name": "a", "colour": "blue"}], "colour"),
        ("plugins", [{"name": "a", "settings": [1]}], "object"),
        ("plugins", [{"name": "a", "source": "#" * 10**5}], "maxLength"),
        ("plugins", [{"name": "a", "image": "$(touch x)"}], "pattern"),
        ("plugins", [{"name": f"a{number}"} for number in range(17)], "maxItems"),
        ("infrastructure.update_partition", 11, "maximum"),
        ("monitoring.grafana.image.tag", "", "pattern"),
        ("monitoring.grafana.resources.limits.gpu", "1", "gpu"),
        ("monitoring.existing.dashboard_labels", {"grafana_dashboard": 1}, "string"),
        ("monitoring.existing.dashboard_labels", {"grafana_dashboard": "a b"}, "pattern"),
        ("monitoring.existing.dashboard_labels", {"a: b": "c"}, "invalid propertyName 'a: b'"),
        ("scheduling.node_selector", {"a b": "c"}, "invalid propertyName 'a b'"),
        ("deployment.service.type", "NodePort", "'ClusterIP', 'LoadBalancer'"),
        ("deployment.service.annotations", {"a": 1}, "string"),
        ("scheduling.node_selector", {"pool": True}, "string"),
        ("scheduling.tolerations", [{"value": "jarvis"}], "missing property 'key'"),
        ("scheduling.tolerations", [{"key": "a", "effect": "Never"}], "'NoSchedule', 'PreferNoSchedule', 'NoExecute'"),
        ("image.digest", "sha256:0", "pattern"),
        ("monitoring.alertmanager.image.tag", "", "pattern"),
        ("monitoring.alertmanager.resources.limits", {"gpu": "1"}, "gpu"),
        ("notifications.teams", {}, "teams"),
        ("notifications.wait_seconds", 0, "minimum"),
        ("notifications.slack.url", "https://hooks.slack.com/services/T/B/X", "url"),
        ("notifications.slack.port", 65536, "maximum"),
        ("notifications.slack.channel", "{{ .GroupKey }}", "pattern"),
        ("notifications.slack.severities", [], "minItems"),
        ("notifications.slack.severities", ["page"], "'critical', 'warning', 'info'"),
        ("notifications.slack.secret_key", "../url", "pattern"),
        ("notifications.email.to", ["team"], "pattern"),
        ("notifications.email.to", ["{{ .GroupKey }}@example.com"], "pattern"),
        ("notifications.email.from", "Jarvis <jarvis@example.com>", "pattern"),
        ("notifications.email.smarthost", "smtp.example.com", "pattern"),
        ("notifications.email.smarthost", "smtp.example.com:65536", "pattern"),
        ("notifications.email.password", "hunter2", "password"),
        ("notifications.pagerduty.url", "ftp://events.pagerduty.com", "pattern"),
        ("notifications.pagerduty.routing_key", "0" * 32, "routing_key"),
        ("global.image_registry", "mirror.example/", "pattern"),
        ("global.image_pull_secrets", [{"name": "mirror"}], "string"),
        ("ingress.hosts", ["*.example"], "pattern"),
        ("ingress.hosts", ["10.0.0.1"], "pattern"),
        ("ingress.hosts", ["Jarvis.example"], "pattern"),
        ("ingress.hosts", ["a.example", "a.example"], "items at 0 and 1 are equal"),
        ("ingress.hosts", [f"{'a.' * 130}example"], "maxLength"),
        ("ingress.controller", "haproxy", "'contour', 'nginx', 'traefik', 'other'"),
        ("ingress.annotations", {"a": True}, "string"),
        ("ingress.annotations", {"a b": "c"}, "invalid propertyName 'a b'"),
        ("deployment.service.annotations", {"A.example/b": "c"}, "invalid propertyName 'A.example/b'"),
        ("ingress.tls.existing_secret", "a,b=c", "pattern"),
        ("gateway.parent_refs", [{"namespace": "a"}], "missing property 'name'"),
        ("gateway.parent_refs", [{"name": "a", "port": 1}], "port"),
        ("gateway.parent_refs", [{"name": "a"}, {"name": "a"}], "items at 0 and 1 are equal"),
        ("gateway.hostnames", ["a.*.example"], "pattern"),
        ("monitoring.alert_thresholds.cpu_usage", 101, "maximum"),
        ("monitoring.alert_thresholds.crdt_sync_latency", 0, "minimum"),
        ("monitoring.alert_thresholds.cpu", 80, "cpu"),
        ("monitoring.runbook_base_url", "https://git.example/runbooks", "pattern"),
        ("monitoring.runbook_base_url", "{{ $value }}/", "pattern"),
        ("monitoring.runbook_base_url", "${namespace}/", "pattern"),
        ("backup.schedule", "hourly", "pattern"),
        ("backup.destination", "tape", "'volume', 's3'"),
        ("backup.retention.hourly", -1, "minimum"),
        ("backup.s3.endpoint", "s3.example", "pattern"),
        ("backup.s3.bucket", "Bucket", "pattern"),
        ("backup.s3.prefix", "/jarvis/", "pattern"),
        ("backup.s3.access_key", "secret", "access_key"),
        ("backup.volume.storage_class", "tape", "'standard', 'fast-ssd', 'premium'"),
        ("enabled", False, "value must be true"),
        ("colour", "blue", "colour"),
    ],
)
def test_the_schema_refuses(template: Any, path: str, value: Any, says: str):
    done = template(nested(tuple(path.split(".")), value))

    assert 0 != done.returncode
    assert says in done.stderr
    assert "" == done.stdout


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"deployment": {"auto_scaling": {"min_replicas": 5, "max_replicas": 4}}},
            "min_replicas (5) is above max_replicas (4)",
        ),
        (
            {"infrastructure": {"node_count": 2}, "crdt": {"replication_factor": 3}},
            "replication_factor (3) is above infrastructure.node_count (2)",
        ),
        (
            {"deployment": {"resource_limits": {"cpu": "0.05"}}},
            "resource_requests.cpu (100m) is above deployment.resource_limits.cpu (0.05)",
        ),
        (
            {"deployment": {"resource_requests": {"memory": "3Gi"}}},
            "resource_requests.memory (3Gi) is above deployment.resource_limits.memory (2Gi)",
        ),
        (
            {"deployment": {"resource_limits": {"storage": "32Mi"}}},
            "resource_requests.storage (64Mi) is above deployment.resource_limits.storage (32Mi)",
        ),
        (
            {"crdt": {"conflict_resolution": "lww", "conflict_rules": [{"strategy": "max"}]}},
            "crdt.conflict_rules is given while crdt.conflict_resolution is lww",
        ),
        (
            {"crdt": {"conflict_rules": [{"strategy": "max"}, {"strategy": "priority", "sources": []}]}},
            "crdt.conflict_rules.1.sources is empty while its strategy is priority",
        ),
        (
            {"crdt": {"conflict_rules": [{"strategy": "max", "sources": ["jarvis-crdt-0"]}]}},
            "crdt.conflict_rules.0.sources is given while its strategy is max",
        ),
        (
            {"crdt": {"conflict_rules": [{"strategy": "max"}, {"strategy": "a.b"}]}, "plugins": [{"name": "b"}]},
            "crdt.conflict_rules.1.strategy is a.b, of a plugin that is not in plugins",
        ),
        (
            {"security": {"secrets": {"source": "external"}}},
            "external.store_name is empty while security.secrets.source",
        ),
        (
            {"security": {"secrets": {"external": {"store_name": "vault"}}}},
            "store_name is given while security.secrets.source is generated",
        ),
        (
            {"security": {"secrets": {"names": {"api_keys": "a", "admin_token": "a"}}}},
            "security.secrets.names.api_keys is a, as the Secret of secrets.names.admin_token",
        ),
        (
            {"security": {"certificates": {"names": {"node": "a"}}}},
            "security.certificates.names.node is given while security.certificates.source is self_signed",
        ),
        (
            {"security": {"certificates": {"cert_manager": {"issuer_name": "a"}}}},
            "issuer_name is given while security.certificates.source is self_signed",
        ),
        (
            {"security": {"certificates": {"cert_manager": {"duration_hours": 24}}}},
            "renew_before_hours (720) is not below duration_hours (24)",
        ),
        ({"plugins": [{"name": "a"}, {"name": "a"}]}, "plugins.1.name is a, as another plugin's"),
        (
            {"notifications": {"slack": {"enabled": True}}},
            "notifications.slack.existing_secret is empty while notifications.slack.enabled is true",
        ),
        (
            {"notifications": {"pagerduty": {"enabled": True}}},
            "notifications.pagerduty.existing_secret is empty while notifications.pagerduty.enabled is true",
        ),
        (
            {"notifications": {"email": {"enabled": True}}},
            "notifications.email.to is empty while notifications.email.enabled is true",
        ),
        (
            {"notifications": {"email": {"enabled": True, "to": ["a@b.c"], "from": "a@b.c"}}},
            "notifications.email.smarthost is empty while notifications.email.enabled is true",
        ),
        (
            {"notifications": {"email": {"username": "a"}}},
            "notifications.email.existing_secret is empty while there is a username",
        ),
        (
            {"notifications": {"email": {"existing_secret": "a"}}},
            "notifications.email.username is empty while there is an existing_secret",
        ),
        (
            {
                "monitoring": {"stack": "existing"},
                "notifications": {"slack": {"enabled": True, "existing_secret": "a"}},
            },
            "notifications.slack.enabled is true while monitoring.stack is existing",
        ),
        (
            {
                "monitoring": {"alerting_enabled": False},
                "notifications": {"slack": {"enabled": True, "existing_secret": "a"}},
            },
            "notifications.slack.enabled is true while monitoring.alerting_enabled is false",
        ),
        (
            {"monitoring": {"alertmanager": {"resources": {"limits": {"memory": "32Mi"}}}}},
            "requests.memory (64Mi) is above monitoring.alertmanager.resources.limits.memory (32Mi)",
        ),
        ({"plugins": [{"name": "a", "source": "x = 1", "image": "b"}]}, "plugins.0.image is given beside its source"),
        ({"ingress": {"enabled": True}}, "ingress.hosts is empty while ingress.enabled is true"),
        (
            {
                "ingress": {
                    "enabled": True,
                    "hosts": ["a"],
                    "tls": {"existing_secret": "a", "cluster_issuer": "b"},
                }
            },
            "ingress.tls.cluster_issuer is given beside ingress.tls.existing_secret",
        ),
        (
            {"ingress": {"enabled": True, "hosts": ["a"]}, "security": {"enable_tls": False}},
            "ingress.tls.existing_secret is empty while security.enable_tls is false",
        ),
        ({"gateway": {"enabled": True}}, "gateway.parent_refs is empty while gateway.enabled is true"),
        (
            {"monitoring": {"prometheus_enabled": False}},
            "grafana_enabled is true while monitoring.prometheus",
        ),
        (
            {"monitoring": {"grafana": {"resources": {"limits": {"memory": "128Mi"}}}}},
            "requests.memory (256Mi) is above monitoring.grafana.resources.limits.memory (128Mi)",
        ),
        (
            {"instance_presets": {"small": {"requests": {"memory": "1Gi"}}}},
            "small.requests.memory (1Gi) is above instance_presets.small.limits.memory (512Mi)",
        ),
        (
            {"monitoring": {"prometheus": {"resources": {"requests": {"cpu": "1001m"}}}}},
            "resources.requests.cpu (1001m) is above monitoring.prometheus.resources.limits.cpu (1): lower",
        ),
    ],
)
def test_rules_across_keys_refuse_and_name_both(template: Any, values: Any, says: str):
    done = template(values)

    assert 0 != done.returncode
    assert says in done.stderr


def test_a_parent_chart_may_pass_globals(template: Any):
    assert 0 == template({"global": {"anything": 1}}).returncode


@pytest.mark.parametrize(("length", "accepted"), [(47, True), (48, False)])
def test_a_release_name_leaves_room_for_the_names_made_of_it(template: Any, length: int, accepted: bool):
    done = template(release="a" * length)

    assert accepted == (done.returncode == 0)
    assert accepted or f"has {length} characters: at most 47" in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "infrastructure: {node_count: 3.0}",
        "infrastructure: {node_count: 3.5}",
        "infrastructure: {node_count: true}",
        "infrastructure: {node_count: 1}",
        "infrastructure: {node_count: 4}\ncrdt: {replication_factor: 4}",
        "infrastructure: {availability_zones: [a, a]}",
        "infrastructure: {availability_zones: [no]}",
        'infrastructure: {cluster_name: "a\\n"}',
        'infrastructure: {storage_size: "1Gi\\n"}',
        "infrastructure: {vpc_cidr: }",
        "deployment: {auto_scaling: {enabled: false, min_replicas: 50}}",
        "deployment: {auto_scaling: {target_memory_utilization: }}",
        "deployment: {resource_limits: {cpu: 2}}",
        'deployment: {resource_limits: {cpu: "0.5"}}',
        'deployment: {resource_limits: {cpu: "0.100"}}',
        'deployment: {resource_limits: {cpu: "0.0"}}',
        'deployment: {resource_limits: {cpu: "0.099"}}',
        'deployment: {resource_limits: {cpu: "99m"}}',
        "deployment: {resource_limits: {memory: 128Mi}}",
        "deployment: {resource_limits: {memory: 127Mi}}",
        "deployment: {resource_requests: {memory: 2048Mi}}",
        "deployment: {resource_requests: {memory: 2049Mi}}",
        "instance_presets: {small: {limits: {memory: 1Gi}}}",
        "monitoring: {prometheus: {resources: {limits: {memory: 255Mi}}}}",
        "monitoring: {prometheus: {resources: {requests: {cpu: 1000m}}}}",
        "monitoring: {prometheus: {storage_class: }}",
        "instance_presets: {large: {requests: {cpu: 3000m}}}",
        "instance_presets: {medium: }",
        "crdt:",
        "crdt: {conflict_rules: }",
        "crdt: {conflict_rules: [3]}",
        "crdt: {conflict_rules: [{strategy: max, prefix: , type: map}]}",
        "crdt: {conflict_rules: [{strategy: max, prefix: '<&>é', type: map}]}",
        "crdt: {conflict_rules: [{type: map}]}",
        "crdt: {conflict_rules: [{strategy: priority}]}",
        "crdt: {conflict_rules: [{strategy: priority, sources: [a, a]}]}",
        "crdt: {conflict_rules: [{strategy: priority, sources: [a, b]}]}",
        "crdt: {conflict_rules: [{strategy: union, sources: [a]}]}",
        "crdt: {conflict_rules: [{strategy: a.b}]}",
        "{crdt: {conflict_rules: [{strategy: a.b, sources: [c]}]}, plugins: [{name: a}]}",
        "{crdt: {conflict_rules: [{strategy: a.b}]}, plugins: [{name: b}]}",
        "{crdt: {conflict_rules: [{strategy: a-.b}]}, plugins: [{name: a}]}",
        "{crdt: {conflict_rules: [{strategy: a.b.c}]}, plugins: [{name: a}]}",
        "crdt: {conflict_resolution: multi_value, conflict_rules: []}",
        "crdt: {conflict_resolution: multi_value, conflict_rules: [{strategy: max}]}",
        "plugins: ",
        "plugins: {}",
        "plugins: [{name: a, settings: {b: {c: [1, null]}}}, {name: b, source: 'x = 1'}, {name: c, image: 'd/e:1'}]",
        "plugins: [{name: a, required: yes, timeout_ms: 10000, memory_mib: 64}]",
        "plugins: [{name: a}, {name: a}]",
        "plugins: [{name: a, image: b, source: c}]",
        'plugins: [{name: a, image: "b\\n"}]',
        "plugins: [{name: -a}]",
        "global: 3",
        "global: {anything: {at: all}, image_registry: a/b}",
        "global: {image_pull_secrets: [a, a]}",
        "global: {image_registry: }",
        "enabled: true",
        "enabled: false",
        "security: {secrets: {source: existing}}",
        "security: {secrets: {source: vault}}",
        "security: {secrets: {source: external}}",
        "security: {secrets: {source: external, external: {store_name: vault}}}",
        "security: {secrets: {external: {store_name: vault}}}",
        "security: {secrets: {external: {remote: {cluster: {key: ''}}}}}",
        "security: {secrets: {external: {remote: {cluster: {key: 'a b'}}}}}",
        "security: {secrets: {external: {remote: {encryption_previous: {key: ''}}}}}",
        "security: {secrets: {external: {refresh_interval: 1d}}}",
        "security: {secrets: {names: {cluster: a, encryption: a}}}",
        "security: {secrets: {names: {cluster: a, encryption: b}}}",
        "security: {secrets: {names: {cluster: jarvis-encryption}}}",
        "security: {secrets: {names: {cluster: jarvis-encryption, encryption: jarvis-cluster}}}",
        "security: {secrets: {names: {cluster: jarvis-node-tls}}}",
        "security: {secrets: {names: {admin_token: jarvis-authority}}}",
        "security: {secrets: {names: {api_keys: -a}}}",
        "security: {secrets: {names: {api_keys: 'a\\n'}}}",
        "security: {certificates: {source: existing, names: {node: a, backend: a}}}",
        "security: {certificates: {source: existing, names: {node: a, backend: b}}}",
        "security: {certificates: {source: cert_manager, names: {node: a}}}",
        "security: {certificates: {source: cert_manager, names: {api: jarvis-cluster}}}",
        "security: {certificates: {names: {node: a}}}",
        "security: {certificates: {cert_manager: {issuer_name: a}}}",
        "security: {certificates: {source: cert_manager, cert_manager: {issuer_name: a, issuer_kind: ClusterIssuer}}}",
        "security: {certificates: {source: cert_manager, cert_manager: {issuer_kind: issuer}}}",
        "security: {certificates: {cert_manager: {duration_hours: 24}}}",
        "security: {certificates: {cert_manager: {duration_hours: 24, renew_before_hours: 24}}}",
        "security: {certificates: {cert_manager: {duration_hours: 24, renew_before_hours: 23}}}",
        "security: {certificates: {cert_manager: {duration: 24h}}}",
        "monitoring: {prometheus_enabled: false}",
        "monitoring: {prometheus_enabled: false, grafana_enabled: false, alerting_enabled: false}",
        "monitoring: {prometheus_enabled: false, alerting_enabled: false, stack: existing}",
        "monitoring: {grafana: {resources: {requests: {cpu: 1500m}}}}",
        "monitoring: {grafana: {resources: {limits: {memory: 300Mi}}}}",
        "monitoring: {existing: {dashboard_labels: {}}}",
        "monitoring: {existing: {dashboard_labels: {/a: b}}}",
        "scheduling: {node_selector: {a/b/c: d}}",
        "security: {secrets: {names: {grafana: jarvis-cluster}}}",
        "security: {secrets: {names: {grafana: own}}}",
        "monitoring: {existing: {dashboard_labels: {a.b/c: ''}}}",
        "image: {digest: 'sha256:a'}",
        "scheduling: {node_selector: {a: 1}}",
        "scheduling: {node_selector: {a: '1'}, tolerations: [{key: a, value: , effect: }]}",
        "scheduling: {node_selector: {a: '1'}, tolerations: [{key: a.b/c, value: '', effect: ''}]}",
        "deployment: {service: {annotations: {a.b/c: 'x'}}}",
        "ingress: {enabled: true}",
        "ingress: {annotations: {a.b/C_d: e, f: ''}}",
        "ingress: {annotations: {/a: b}}",
        'ingress: {annotations: {"a\\n": b}}',
        "ingress: {enabled: true, hosts: [jarvis.example]}",
        "ingress: {enabled: true, hosts: [jarvis.example.]}",
        "ingress: {enabled: true, hosts: [example.1a]}",
        'ingress: {enabled: true, hosts: ["a\n"]}',
        "ingress: {enabled: false, tls: {existing_secret: a, cluster_issuer: b}}",
        "ingress: {enabled: true, hosts: [a], tls: {existing_secret: a, cluster_issuer: b}}",
        "{ingress: {enabled: true, hosts: [a]}, security: {enable_tls: false}}",
        "{ingress: {enabled: true, hosts: [a], tls: {existing_secret: b}}, security: {enable_tls: false}}",
        "{ingress: {enabled: true, hosts: [a], tls: {cluster_issuer: b}}, security: {enable_tls: false}}",
        "gateway: {enabled: true}",
        "gateway: {enabled: true, parent_refs: [{name: a, namespace: , section_name: b}], hostnames: ['*.a']}",
        "gateway: {enabled: true, parent_refs: [{name: a, namespace: '', section_name: b}], hostnames: ['*.a']}",
        "notifications: {slack: {enabled: true}}",
        "notifications: {slack: {enabled: true, existing_secret: a}}",
        "{notifications: {slack: {enabled: true, existing_secret: a}}, monitoring: {stack: existing}}",
        "{notifications: {slack: {enabled: true, existing_secret: a}}, monitoring: {alerting_enabled: false}}",
        "{notifications: {slack: {existing_secret: a}}, monitoring: {stack: existing, alerting_enabled: false}}",
        "notifications: {slack: {severities: [critical, critical]}}",
        'notifications: {slack: {channel: "a\\n"}}',
        "notifications: {slack: {channel: '#größe'}}",
        "notifications: {email: {enabled: true, to: [a@b.c], from: a@b.c}}",
        "notifications: {email: {enabled: true, to: [a@b.c], from: a@b.c, smarthost: 'b.c:65535'}}",
        "notifications: {email: {smarthost: 'b.c:0'}}",
        "notifications: {email: {username: a}}",
        "notifications: {email: {username: a, existing_secret: b}}",
        'notifications: {email: {to: ["a@b.c\\n"]}}',
        "notifications: {pagerduty: {enabled: true, existing_secret: a, url: 'http://b:80'}}",
        "notifications: {pagerduty: {enabled: true, existing_secret: }}",
        "monitoring: {alertmanager: {resources: {requests: {memory: 1Gi}}}}",
        "colour: blue",
    ],
)
def test_helm_and_the_cli_judge_alike(template: Any, tmp_path: Path, text: str):
    path = tmp_path / "cluster-config.yaml"
    path.write_text(text)
    try:
        accepted = bool(read_config(path).values)
    except ConfigError:
        accepted = False

    assert accepted == (template(files=(path,)).returncode == 0)
