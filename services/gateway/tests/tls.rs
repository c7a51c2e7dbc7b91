//! The TLS that partners and InfoPols are spoken to with: groups, versions, no way back into an old session.

// Clippy takes only functions marked #[test] for tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use liaison_gateway::tls::{Elsewhere, client_config, group_label, server_config};
use rustls::{
    ClientConfig, NamedGroup,
    client::Resumption,
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs},
    version,
};
use support::{DOMAIN, ca::Ca};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// No leaf of another CA is granted.
#[derive(Debug)]
struct Nobody;

impl Elsewhere for Nobody {
    fn grants(&self, _leaf: &[u8]) -> bool {
        false
    }
}

/// What a handshake ended with, on the server's side: its group, and whether it was resumed; twice with one client.
async fn twice(client: ClientConfig, server: Arc<rustls::ServerConfig>) -> Vec<Option<(NamedGroup, bool)>> {
    let client = Arc::new(client);
    let mut all = Vec::new();
    for _ in 0..2 {
        let (near, far) = duplex(1 << 16);
        let connector = TlsConnector::from(Arc::clone(&client));
        let name = format!("a.{DOMAIN}").try_into().unwrap();
        let asking = tokio::spawn(async move {
            let mut stream = connector.connect(name, near).await.ok()?;
            stream.write_all(b"x").await.ok()?;
            // Tickets would come before this.
            stream.read_u8().await.ok()
        });
        let accepted = TlsAcceptor::from(Arc::clone(&server)).accept(far).await;
        let Ok(mut stream) = accepted else {
            all.push(None);
            assert_eq!(asking.await.unwrap(), None);
            continue;
        };
        let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
        let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        stream.read_u8().await.unwrap();
        stream.write_u8(1).await.unwrap();
        assert_eq!(asking.await.unwrap(), Some(1));
        all.push(Some((group, resumed)));
    }
    all
}

#[tokio::test]
async fn hybrid_groups_first_then_classical_ones_and_nothing_weaker() {
    let ca = Ca::new();
    let server = ca.server(&[&format!("*.{DOMAIN}")], &format!("spiffe://{DOMAIN}/gateway"));
    let server = Arc::new(server_config(&ca.material(&server), Arc::new(Nobody)).unwrap());
    let leaf = ca.client(&format!("spiffe://{DOMAIN}/partner/a"));
    let ours = client_config(&ca.material(&leaf)).unwrap();
    let hybrid = Some((NamedGroup::X25519MLKEM768, false));
    assert_eq!(twice(ours.clone(), Arc::clone(&server)).await, [hybrid, hybrid]);

    let all: &[(&'static dyn SupportedKxGroup, &str)] = &[
        (aws_lc_rs::kx_group::X25519MLKEM768, "x25519mlkem768"),
        (aws_lc_rs::kx_group::SECP256R1MLKEM768, "secp256r1mlkem768"),
        (aws_lc_rs::kx_group::X25519, "x25519"),
        (aws_lc_rs::kx_group::SECP256R1, "secp256r1"),
        (aws_lc_rs::kx_group::SECP384R1, "secp384r1"),
    ];
    for (group, label) in all {
        let client = with(&ca, &leaf, vec![*group], &version::TLS13);
        let done = twice(client, Arc::clone(&server)).await;
        assert_eq!(done, [Some((group.name(), false)); 2], "{label}: and none is resumed, though the client would");
        assert_eq!(group_label(Some(group.name())), *label);
    }
    // A client that has both and begins with the hybrid one gets it. (One that begins with the classical one gets that: rustls
    // takes the client's order.)
    let client = with(&ca, &leaf, vec![all[1].0, all[2].0], &version::TLS13);
    let done = twice(client, Arc::clone(&server)).await;
    assert_eq!(done[0].map(|(group, _)| group), Some(NamedGroup::secp256r1MLKEM768));
    // The pure post-quantum group is in no suite of ours.
    let client = with(&ca, &leaf, vec![aws_lc_rs::kx_group::MLKEM768], &version::TLS13);
    assert_eq!(twice(client, Arc::clone(&server)).await, [None, None]);
    assert_eq!(group_label(Some(NamedGroup::MLKEM768)), "other");
    // The client's whole set, in TLS 1.2.
    let groups = aws_lc_rs::default_provider().kx_groups;
    assert_eq!(twice(with(&ca, &leaf, groups, &version::TLS12), server).await, [None, None]);
}

/// Another's client, which would resume.
fn with(
    ca: &Ca,
    leaf: &support::ca::Leaf,
    groups: Vec<&'static dyn SupportedKxGroup>,
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.root.as_bytes()).unwrap()).unwrap();
    let chain = CertificateDer::pem_slice_iter(leaf.chain.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let provider = CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap())
        .unwrap();
    config.resumption = Resumption::in_memory_sessions(8);
    config
}
