//! The difference of two pod specs, with all unset fields of containers and projected volumes, as upstream prints it.

use serde_json::Value;

use crate::validate::diff::{Shape, diff};

const POD_SPEC: Shape = &[
    ("Volumes", "volumes", "null"),
    ("InitContainers", "initContainers", "null"),
    ("Containers", "containers", "null"),
    ("EphemeralContainers", "ephemeralContainers", "null"),
    ("RestartPolicy", "restartPolicy", "\"\""),
    ("TerminationGracePeriodSeconds", "terminationGracePeriodSeconds", "null"),
    ("ActiveDeadlineSeconds", "activeDeadlineSeconds", "null"),
    ("DNSPolicy", "dnsPolicy", "\"\""),
    ("NodeSelector", "nodeSelector", "null"),
    ("ServiceAccountName", "serviceAccountName", "\"\""),
    ("AutomountServiceAccountToken", "automountServiceAccountToken", "null"),
    ("NodeName", "nodeName", "\"\""),
    ("SecurityContext", "securityContext", "null"),
    ("ImagePullSecrets", "imagePullSecrets", "null"),
    ("Hostname", "hostname", "\"\""),
    ("Subdomain", "subdomain", "\"\""),
    ("SetHostnameAsFQDN", "setHostnameAsFQDN", "null"),
    ("Affinity", "affinity", "null"),
    ("SchedulerName", "schedulerName", "\"\""),
    ("Tolerations", "tolerations", "null"),
    ("HostAliases", "hostAliases", "null"),
    ("PriorityClassName", "priorityClassName", "\"\""),
    ("Priority", "priority", "null"),
    ("PreemptionPolicy", "preemptionPolicy", "null"),
    ("DNSConfig", "dnsConfig", "null"),
    ("ReadinessGates", "readinessGates", "null"),
    ("RuntimeClassName", "runtimeClassName", "null"),
    ("Overhead", "overhead", "null"),
    ("EnableServiceLinks", "enableServiceLinks", "null"),
    ("TopologySpreadConstraints", "topologySpreadConstraints", "null"),
    ("OS", "os", "null"),
    ("SchedulingGates", "schedulingGates", "null"),
    ("ResourceClaims", "resourceClaims", "null"),
    ("Resources", "resources", "null"),
    ("HostnameOverride", "hostnameOverride", "null"),
];

const CONTAINER: Shape = &[
    ("Name", "name", "\"\""),
    ("Image", "image", "\"\""),
    ("Command", "command", "null"),
    ("Args", "args", "null"),
    ("WorkingDir", "workingDir", "\"\""),
    ("Ports", "ports", "null"),
    ("EnvFrom", "envFrom", "null"),
    ("Env", "env", "null"),
    ("Resources", "resources", "{}"),
    ("ResizePolicy", "resizePolicy", "null"),
    ("RestartPolicy", "restartPolicy", "null"),
    ("RestartPolicyRules", "restartPolicyRules", "null"),
    ("VolumeMounts", "volumeMounts", "null"),
    ("VolumeDevices", "volumeDevices", "null"),
    ("LivenessProbe", "livenessProbe", "null"),
    ("ReadinessProbe", "readinessProbe", "null"),
    ("StartupProbe", "startupProbe", "null"),
    ("Lifecycle", "lifecycle", "null"),
    ("TerminationMessagePath", "terminationMessagePath", "\"\""),
    ("TerminationMessagePolicy", "terminationMessagePolicy", "\"\""),
    ("ImagePullPolicy", "imagePullPolicy", "\"\""),
    ("SecurityContext", "securityContext", "null"),
    ("Stdin", "stdin", "false"),
    ("StdinOnce", "stdinOnce", "false"),
    ("TTY", "tty", "false"),
];

const CONTAINER_RESOURCES: Shape = &[("Limits", "limits", "null"), ("Requests", "requests", "null"), ("Claims", "claims", "null")];

const VOLUME: Shape = &[
    ("Name", "name", "\"\""),
    ("HostPath", "hostPath", "null"),
    ("EmptyDir", "emptyDir", "null"),
    ("GCEPersistentDisk", "gcePersistentDisk", "null"),
    ("AWSElasticBlockStore", "awsElasticBlockStore", "null"),
    ("GitRepo", "gitRepo", "null"),
    ("Secret", "secret", "null"),
    ("NFS", "nfs", "null"),
    ("ISCSI", "iscsi", "null"),
    ("Glusterfs", "glusterfs", "null"),
    ("PersistentVolumeClaim", "persistentVolumeClaim", "null"),
    ("RBD", "rbd", "null"),
    ("Quobyte", "quobyte", "null"),
    ("FlexVolume", "flexVolume", "null"),
    ("Cinder", "cinder", "null"),
    ("CephFS", "cephfs", "null"),
    ("Flocker", "flocker", "null"),
    ("DownwardAPI", "downwardAPI", "null"),
    ("FC", "fc", "null"),
    ("AzureFile", "azureFile", "null"),
    ("ConfigMap", "configMap", "null"),
    ("VsphereVolume", "vsphereVolume", "null"),
    ("AzureDisk", "azureDisk", "null"),
    ("PhotonPersistentDisk", "photonPersistentDisk", "null"),
    ("Projected", "projected", "null"),
    ("PortworxVolume", "portworxVolume", "null"),
    ("ScaleIO", "scaleIO", "null"),
    ("StorageOS", "storageos", "null"),
    ("CSI", "csi", "null"),
    ("Ephemeral", "ephemeral", "null"),
    ("Image", "image", "null"),
];

const PROJECTED: Shape = &[("Sources", "sources", "null"), ("DefaultMode", "defaultMode", "null")];

const PROJECTION: Shape = &[
    ("Secret", "secret", "null"),
    ("DownwardAPI", "downwardAPI", "null"),
    ("ConfigMap", "configMap", "null"),
    ("ServiceAccountToken", "serviceAccountToken", "null"),
    ("ClusterTrustBundle", "clusterTrustBundle", "null"),
    ("PodCertificate", "podCertificate", "null"),
];

const TOKEN: Shape = &[("Audience", "audience", "\"\""), ("ExpirationSeconds", "expirationSeconds", "0"), ("Path", "path", "\"\"")];

const KEYS: Shape = &[("Name", "name", "\"\""), ("Items", "items", "null"), ("Optional", "optional", "null")];

const KEY: Shape = &[("Key", "key", "\"\""), ("Path", "path", "\"\""), ("Mode", "mode", "null")];

const DOWNWARD_FILE: Shape = &[
    ("Path", "path", "\"\""),
    ("FieldRef", "fieldRef", "null"),
    ("ResourceFieldRef", "resourceFieldRef", "null"),
    ("Mode", "mode", "null"),
];

const FIELD_REF: Shape = &[("APIVersion", "apiVersion", "\"\""), ("FieldPath", "fieldPath", "\"\"")];

const MOUNT: Shape = &[
    ("Name", "name", "\"\""),
    ("ReadOnly", "readOnly", "false"),
    ("RecursiveReadOnly", "recursiveReadOnly", "null"),
    ("MountPath", "mountPath", "\"\""),
    ("SubPath", "subPath", "\"\""),
    ("MountPropagation", "mountPropagation", "null"),
    ("SubPathExpr", "subPathExpr", "\"\""),
];

const PORT: Shape = &[
    ("Name", "name", "\"\""),
    ("HostPort", "hostPort", "0"),
    ("ContainerPort", "containerPort", "0"),
    ("Protocol", "protocol", "\"\""),
    ("HostIP", "hostIP", "\"\""),
];

const ENV: Shape = &[("Name", "name", "\"\""), ("Value", "value", "\"\""), ("ValueFrom", "valueFrom", "null")];

fn shape(path: &[&str]) -> Option<Shape> {
    match path {
        [] => Some(POD_SPEC),
        ["containers" | "initContainers"] => Some(CONTAINER),
        ["containers" | "initContainers", "resources"] => Some(CONTAINER_RESOURCES),
        ["containers" | "initContainers", "volumeMounts"] => Some(MOUNT),
        ["containers" | "initContainers", "ports"] => Some(PORT),
        ["containers" | "initContainers", "env"] => Some(ENV),
        ["volumes"] => Some(VOLUME),
        ["volumes", "projected"] => Some(PROJECTED),
        ["volumes", "projected", "sources"] => Some(PROJECTION),
        ["volumes", "projected", "sources", "serviceAccountToken"] => Some(TOKEN),
        ["volumes", "projected", "sources", "configMap" | "secret"] => Some(KEYS),
        ["volumes", "projected", "sources", "configMap" | "secret", "items"] => Some(KEY),
        ["volumes", "projected", "sources", "downwardAPI", "items"] => Some(DOWNWARD_FILE),
        ["volumes", "projected", "sources", "downwardAPI", "items", "fieldRef"] => Some(FIELD_REF),
        _ => None,
    }
}

/// The difference of two pod specs.
pub(crate) fn pod_spec(old: &Value, new: &Value) -> String {
    diff(shape, old, new)
}
