//! The objects of a partner: Jobs of sync, and its read service with restricted pod security.
//!
//! Pure: from names and settings to manifests. Written as JSON, which reads like the YAML it is, and typed by serde.

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        batch::v1::Job,
        core::v1::{Service, ServiceAccount},
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use liaison_crds::partner_connection::DeletionPolicy;
use serde_json::{Value, json};

use super::names::Names;
use crate::settings::Settings;

/// The uid and gid of the images' user.
const USER: i64 = 10001;

/// Where a store is, as its Secret says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Host.
    pub host: String,
    /// Port.
    pub port: String,
    /// Database.
    pub dbname: String,
}

/// What the read service is made from.
#[derive(Debug)]
pub struct Infopol<'a> {
    /// Names.
    pub names: &'a Names,
    /// Settings.
    pub settings: &'a Settings,
    /// The connection.
    pub owner: OwnerReference,
    /// Its store.
    pub store: Store,
    /// Its role.
    pub reader: String,
    /// 0 when it is not to serve.
    pub replicas: i32,
}

/// What a Job does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Makes schemas, role and first fill.
    Seed,
    /// Drops them, or disables the role and records when they are due.
    Dispose(DeletionPolicy),
    /// Asks for a verification, and tells what came of it; its name is the request's.
    Verify(String),
    /// The same, after the replica has been made anew.
    Rebuild(String),
    /// Notes in the ledger what was picked up.
    Handover {
        /// The Job's name.
        name: String,
        /// SHA-256 of the bundle.
        bundle: String,
        /// What was in it, by name.
        contents: Vec<String>,
    },
}

/// The label that says what a Job is for.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Its value for verifications and rebuilds.
pub const VERIFY: &str = "verification";

/// A Job of sync.
pub fn job(task: &Task, names: &Names, settings: &Settings, store: &str) -> Result<Job, serde_json::Error> {
    let (name, verb) = match task {
        Task::Seed => (&names.seed_job, "seed"),
        Task::Dispose(_) => (&names.dispose_job, "dispose"),
        Task::Verify(name) => (name, "verify"),
        Task::Rebuild(name) => (name, "rebuild"),
        Task::Handover { name, .. } => (name, "handover"),
    };
    let asks = matches!(task, Task::Verify(_) | Task::Rebuild(_));
    let hub_alone = asks || matches!(task, Task::Handover { .. });
    let from = |variable: &str, secret: &str, key: &str| json!({"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}});
    let mut env = vec![
        json!({"name": "SYSTEM_NAMESPACE", "value": settings.system_namespace}),
        json!({"name": "PARTNERS_NAMESPACE", "value": settings.partners_namespace}),
        json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
    ];
    let databases = [("HUB", settings.hub_secret.clone()), ("STORE", settings.store_secret_of(store))];
    // Who only asks has no business in the store.
    for (prefix, secret) in databases.into_iter().take(if hub_alone { 1 } else { 2 }) {
        for (variable, key) in [("HOST", "host"), ("PORT", "port"), ("DBNAME", "dbname"), ("PASSWORD", "sync-password")]
        {
            env.push(from(&format!("{prefix}_{variable}"), &secret, key));
        }
        let fixed = [
            ("USER", "liaison_sync"),
            ("SSLROOTCERT", "/tls/ca.crt"),
            ("SSLCERT", "/tls/tls.crt"),
            ("SSLKEY", "/tls/tls.key"),
        ];
        env.extend(fixed.map(|(variable, value)| json!({"name": format!("{prefix}_{variable}"), "value": value})));
    }
    match task {
        Task::Seed => env.push(from("READER_VERIFIER", &names.seed_secret, "verifier")),
        Task::Dispose(policy) => env.push(json!({
            "name": "DELETION_POLICY",
            "value": match policy { DeletionPolicy::Retain => "Retain", DeletionPolicy::Delete => "Delete" },
        })),
        Task::Handover { bundle, contents, .. } => {
            env.push(json!({"name": "BUNDLE", "value": bundle}));
            env.push(json!({"name": "CONTENTS", "value": contents.join(",")}));
        }
        Task::Verify(request) | Task::Rebuild(request) => env.push(json!({"name": "REQUEST", "value": request})),
    }
    let mut value = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": settings.system_namespace, "labels": names.labels("sync")},
        "spec": {
            // The pod is tried again where it is: its last termination message stays to be read.
            "backoffLimit": 1000,
            "template": {
                "metadata": {"labels": names.labels("sync")},
                "spec": {
                    "restartPolicy": "OnFailure",
                    "serviceAccountName": "liaison-sync",
                    "securityContext": pod_security(),
                    "containers": [{
                        "name": "sync",
                        "image": settings.image_sync,
                        "imagePullPolicy": settings.image_pull_policy,
                        "args": [verb, "--partner", names.partner],
                        "env": env,
                        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
                        "securityContext": container_security(),
                        "volumeMounts": [
                            {"name": "tls", "mountPath": "/tls", "readOnly": true},
                            {"name": "tmp", "mountPath": "/tmp"},
                        ],
                    }],
                    "volumes": [
                        {"name": "tls", "secret": {"secretName": "sync-tls", "defaultMode": 0o440}},
                        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
                    ],
                },
            },
        },
    });
    if !matches!(task, Task::Seed) {
        value["spec"]["ttlSecondsAfterFinished"] = json!(3600);
    }
    if asks {
        value["metadata"]["labels"][COMPONENT] = json!(VERIFY);
        value["spec"]["backoffLimit"] = json!(6);
        value["spec"]["activeDeadlineSeconds"] = json!(if matches!(task, Task::Rebuild(_)) { 12_000 } else { 3_600 });
    }
    pull_secrets(&mut value["spec"]["template"]["spec"], settings);
    serde_json::from_value(value)
}

/// The image that a Job runs.
pub fn image(job: &Job) -> Option<&str> {
    job.spec.as_ref()?.template.spec.as_ref()?.containers.first()?.image.as_deref()
}

impl Infopol<'_> {
    fn metadata(&self) -> Value {
        json!({
            "name": self.names.infopol,
            "namespace": self.settings.partners_namespace,
            "labels": self.names.labels("infopol"),
            "ownerReferences": [self.owner],
        })
    }

    /// Its ServiceAccount, which has no token and no right.
    pub fn service_account(&self) -> Result<ServiceAccount, serde_json::Error> {
        serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": self.metadata(),
            "automountServiceAccountToken": false,
        }))
    }

    /// Its Service, for the gateway.
    pub fn service(&self) -> Result<Service, serde_json::Error> {
        serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(),
            "spec": {
                "selector": self.names.selector(),
                "ports": [{"name": "https", "port": 8443, "targetPort": "https", "protocol": "TCP"}],
            },
        }))
    }

    /// The gateway in, its replica store out; names are allowed to all by the chart.
    pub fn network_policy(&self) -> Result<NetworkPolicy, serde_json::Error> {
        let system = &self.settings.system_namespace;
        let port: i32 = self.store.port.parse().unwrap_or(5432);
        let mut egress = json!({"ports": [{"port": port, "protocol": "TCP"}]});
        // A store outside the cluster has an address that only its operators know: the port is all that can be said.
        if self.store.host.split('.').nth(1) == Some(system) {
            egress["to"] = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": system}}}]);
        }
        serde_json::from_value(json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": self.metadata(),
            "spec": {
                "podSelector": {"matchLabels": self.names.selector()},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [
                    {
                        "from": [{
                            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.settings.gateway_namespace}},
                            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "gateway"}},
                        }],
                        "ports": [{"port": 8443, "protocol": "TCP"}],
                    },
                    // Which roots it holds, and which certificate it shows.
                    {
                        "from": [{
                            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": system}},
                            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "operator"}},
                        }],
                        "ports": [{"port": 8080, "protocol": "TCP"}],
                    },
                ],
                "egress": [egress],
            },
        }))
    }

    /// Its Deployment.
    pub fn deployment(&self) -> Result<Deployment, serde_json::Error> {
        let probe = |path: &str, period: i32, failures: i32| json!({"httpGet": {"path": path, "port": "health"}, "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": 3});
        let mut value = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": self.metadata(),
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": self.names.selector()},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {
                    // Nothing of its certificates: it takes new ones while it runs.
                    "metadata": {"labels": self.names.labels("infopol")},
                    "spec": {
                        "serviceAccountName": self.names.infopol,
                        "automountServiceAccountToken": false,
                        "enableServiceLinks": false,
                        "securityContext": pod_security(),
                        "topologySpreadConstraints": [{
                            "maxSkew": 1,
                            "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": self.names.selector()},
                        }],
                        "containers": [{
                            "name": "infopol",
                            "image": self.settings.image_infopol,
                            "imagePullPolicy": self.settings.image_pull_policy,
                            "env": [
                                {"name": "PARTNER", "value": self.names.partner},
                                {"name": "DOMAIN", "value": self.settings.domain},
                                {"name": "LISTEN", "value": "0.0.0.0:8443"},
                                {"name": "HEALTH_ADDR", "value": "0.0.0.0:8080"},
                                {"name": "TLS_DIR", "value": "/tls"},
                                {"name": "STORE_HOST", "value": self.store.host},
                                {"name": "STORE_PORT", "value": self.store.port},
                                {"name": "STORE_DBNAME", "value": self.store.dbname},
                                {"name": "STORE_USER", "value": self.reader},
                                {"name": "STORE_PASSWORD_FILE", "value": "/reader/password"},
                                // Random, stable, and this partner's InfoPol's alone; sessions' keys are derived from it.
                                {"name": "SESSION_SECRET_FILE", "value": "/reader/password"},
                                {"name": "STORE_SSLROOTCERT", "value": "/reader/ca.crt"},
                                {"name": "STORE_SSLCERT", "value": "/reader/tls.crt"},
                                {"name": "STORE_SSLKEY", "value": "/reader/tls.key"},
                            ],
                            "ports": [
                                {"name": "https", "containerPort": 8443, "protocol": "TCP"},
                                {"name": "health", "containerPort": 8080, "protocol": "TCP"},
                            ],
                            "startupProbe": probe("/healthz", 2, 60),
                            "livenessProbe": probe("/healthz", 20, 3),
                            "readinessProbe": probe("/readyz", 5, 3),
                            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
                            "securityContext": container_security(),
                            "volumeMounts": [
                                {"name": "tls", "mountPath": "/tls", "readOnly": true},
                                {"name": "reader", "mountPath": "/reader", "readOnly": true},
                                {"name": "tmp", "mountPath": "/tmp"},
                            ],
                        }],
                        "volumes": [
                            {"name": "tls", "secret": {"secretName": self.names.infopol_tls, "defaultMode": 0o440}},
                            {"name": "reader", "secret": {"secretName": self.names.reader, "defaultMode": 0o440}},
                            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
                        ],
                    },
                },
            },
        });
        pull_secrets(&mut value["spec"]["template"]["spec"], self.settings);
        serde_json::from_value(value)
    }
}

fn pod_security() -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]},
    })
}

fn pull_secrets(pod: &mut Value, settings: &Settings) {
    let names: Vec<Value> = settings
        .image_pull_secrets
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| json!({"name": name}))
        .collect();
    if !names.is_empty() {
        pod["imagePullSecrets"] = Value::Array(names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partner_connection::fixtures::settings;

    fn names() -> Names {
        Names::new("vancouver-police", "0f8fad5b-d9cb-469f-a165-70867728950e")
    }

    #[test]
    fn a_seed_job_gets_the_verifier_and_no_password_of_the_reader() {
        let job = job(&Task::Seed, &names(), &settings(), "shared").unwrap();
        let text = serde_json::to_string(&job).unwrap();
        assert!(text.contains("READER_VERIFIER") && !text.contains("reader-vancouver-police"), "{text}");
        assert_eq!(job.metadata.name.as_deref(), Some("seed-vancouver-police-0f8fad5b"));
        assert!(text.contains(r#""args":["seed","--partner","vancouver-police"]"#));
    }

    #[test]
    fn the_read_service_has_no_credential_but_its_own() {
        let (names, settings) = (names(), settings());
        let infopol = Infopol {
            names: &names,
            settings: &settings,
            owner: OwnerReference::default(),
            store: Store { host: "store.liaison-system.svc".into(), port: "5432".into(), dbname: "store".into() },
            reader: "reader_vancouver_police".into(),
            replicas: 1,
        };
        let deployment = serde_json::to_value(infopol.deployment().unwrap()).unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], json!(false));
        let container = &pod["containers"][0];
        assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], json!(true));
        let secrets: Vec<&str> =
            pod["volumes"].as_array().unwrap().iter().filter_map(|v| v["secret"]["secretName"].as_str()).collect();
        assert_eq!(secrets, ["infopol-vancouver-police-tls", "reader-vancouver-police"]);
        let policy = serde_json::to_value(infopol.network_policy().unwrap()).unwrap();
        assert_eq!(
            policy["spec"]["egress"][0]["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"],
            json!("liaison-system")
        );
    }
}
