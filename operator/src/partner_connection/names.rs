//! Names of everything that belongs to a partner.

use std::collections::BTreeMap;

use liaison_crds::PARTNER_LABEL;
use sha2::{Digest, Sha256};

use crate::apply;

/// Names of a partner's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The partner: the connection's own name.
    pub partner: String,
    /// ServiceAccount, Deployment, Service and NetworkPolicy.
    pub infopol: String,
    /// Secret with the read service's certificate.
    pub infopol_tls: String,
    /// Secret with the reader's password and certificate.
    pub reader: String,
    /// Secret with the reader's verifier.
    pub seed_secret: String,
    /// ConfigMap with the bundle.
    pub bundle: String,
    /// Secret with the enrolment token.
    pub enrolment_secret: String,
    /// Job that makes and fills the replica.
    pub seed_job: String,
    /// Job that disposes of it.
    pub dispose_job: String,
}

impl Names {
    /// For a connection of this name and uid. A new object of the same name has Jobs of its own, and adopts the rest.
    pub fn new(partner: &str, uid: &str) -> Self {
        let mut short: String = uid.chars().filter(char::is_ascii_hexdigit).take(8).collect();
        if short.len() < 8 {
            short = hex::encode(&Sha256::digest(uid)[..4]);
        }
        Self {
            partner: partner.to_owned(),
            infopol: format!("infopol-{partner}"),
            infopol_tls: format!("infopol-{partner}-tls"),
            reader: format!("reader-{partner}"),
            seed_secret: format!("seed-{partner}"),
            bundle: format!("bundle-{partner}"),
            enrolment_secret: format!("enrolment-{partner}"),
            seed_job: format!("seed-{partner}-{short}"),
            dispose_job: format!("dispose-{partner}-{short}"),
        }
    }

    /// Labels of an object of this partner's.
    pub fn labels(&self, app: &str) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/name", app),
            ("app.kubernetes.io/instance", &self.partner),
            ("app.kubernetes.io/managed-by", apply::MANAGER),
            ("app.kubernetes.io/part-of", "liaison"),
            (PARTNER_LABEL, &self.partner),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// Labels that select its read service's pods.
    pub fn selector(&self) -> BTreeMap<String, String> {
        [("app.kubernetes.io/name", "infopol"), (PARTNER_LABEL, &self.partner)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_kubernetes_limits() {
        let names = Names::new(&"a".repeat(40), "0f8fad5b-d9cb-469f-a165-70867728950e");
        assert_eq!(names.seed_job, format!("seed-{}-0f8fad5b", "a".repeat(40)));
        // A Service's name is a DNS label.
        assert!(names.infopol.len() <= 63 && names.dispose_job.len() <= 63);
    }
}
