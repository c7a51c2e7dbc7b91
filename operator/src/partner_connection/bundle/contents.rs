//! What lies in a partner's bundle, and how it is closed: the secrets by name, the letter in both languages, the configuration for
//! wg-quick, PKCS#12, the signed manifest; packed by tar, encrypted by age. It reads nothing and writes nothing.

use std::io::Write as _;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use liaison_crds::{
    partner_connection::{Connection, CustodyKeys, SeenKey},
    preshared_entry,
};
use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKeyChain};
use sha2::{Digest, Sha256};

use crate::{
    ca::{self, Signer},
    partner_connection::status::Outcome,
};

/// A secret that a partner is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A pair of keys that Liaison made, with what goes with it.
    Keys {
        /// The pair.
        pair: CustodyKeys,
        /// The chain of its certificate.
        chain: String,
        /// Where its preshared key is, if it has one.
        entry: Option<String>,
    },
    /// The preshared key of a WireGuard key.
    Preshared {
        /// The WireGuard public key.
        public_key: String,
        /// Where the preshared key is.
        entry: String,
    },
    /// The enrolment token.
    Token {
        /// What status has of it.
        digest: String,
        /// Until when it can be used.
        not_after: Timestamp,
    },
}

impl Item {
    /// The name in status and in the ledger; tells nothing of the secret.
    pub fn name(&self) -> String {
        match self {
            Self::Keys { pair, .. } => format!("keys-{}", pair.number),
            Self::Preshared { entry, .. } => format!("psk-{entry}"),
            Self::Token { digest, .. } => format!("token-{}", digest.get(..16).unwrap_or(digest)),
        }
    }

    /// The file in the bundle.
    pub fn file(&self) -> String {
        match self {
            Self::Keys { pair, .. } => format!("liaison-{}.conf", pair.number),
            Self::Preshared { entry, .. } => format!("psk-{}", entry.get(..8).unwrap_or(entry)),
            Self::Token { .. } => "token".to_owned(),
        }
    }
}

/// What a partner is to have, by what is granted: pairs of keys that Liaison made, with certificate and preshared key; other
/// preshared keys; and the token while it is of use.
pub fn items(outcome: &Outcome, now: Timestamp) -> Vec<Item> {
    let Outcome { keys, certificates, custody, enrolment: token, .. } = outcome;
    let entry =
        |key: &SeenKey| Some(preshared_entry(&STANDARD.decode(&key.public_key).ok()?)).filter(|_| key.preshared);
    let pairs = custody.iter().filter_map(|pair| {
        let key = keys.iter().find(|key| key.public_key == pair.public_key)?;
        let request = ca::read_request(&pair.signing_request).ok()?;
        let held = certificates.iter().find(|held| held.public_key_sha256 == request.public_key_sha256)?;
        Some(Item::Keys { pair: pair.clone(), chain: held.chain.clone(), entry: entry(key) })
    });
    let others = keys.iter().filter(|key| !custody.iter().any(|pair| pair.public_key == key.public_key));
    let shared =
        others.filter_map(|key| Some(Item::Preshared { public_key: key.public_key.clone(), entry: entry(key)? }));
    let token = token.as_ref();
    let token = token.filter(|token| token.used_by.is_none() && token.not_after.0 > now);
    let token = token.map(|token| Item::Token { digest: token.token_digest.clone(), not_after: token.not_after.0 });
    pairs.chain(shared).chain(token).collect()
}

/// A file on its way into a bundle; cannot be logged.
pub struct Content(pub Vec<u8>);

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

/// Why a bundle could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Packing or encryption.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The PKCS#12 file.
    #[error("PKCS#12: {0}")]
    Keystore(#[from] p12_keystore::error::Error),
    /// The manifest's signature.
    #[error(transparent)]
    Signature(#[from] ca::Error),
}

/// Reads a recipient; the error says what must hold.
pub fn recipient(text: &str) -> Result<age::x25519::Recipient, String> {
    text.parse().map_err(|_| "must be a public key of age, as `age-keygen` prints it ('age1...')".to_owned())
}

/// The letter that lies in the bundle.
pub fn letter(partner: &str, connection: &Connection, items: &[Item]) -> String {
    let (mut en, mut fr) = (String::new(), String::new());
    for item in items {
        let file = item.file();
        let (english, french) = match item {
            Item::Keys { pair, .. } => (
                format!(
                    "the tunnel's configuration for wg-quick, with its key. Beside it: tls-{0}.key and chain-{0}.pem, your certificate with\n    its key, for curl; the same as PKCS#12, for Java and Windows, in client-{0}.p12, whose password is in\n    client-{0}.password; and ca.pem, against which you verify CSC's.",
                    pair.number
                ),
                format!(
                    "la configuration du tunnel pour wg-quick, avec sa clé. À côté : tls-{0}.key et chain-{0}.pem, votre certificat avec\n    sa clé, pour curl; les mêmes en PKCS#12, pour Java et Windows, dans client-{0}.p12, dont le mot de passe est dans\n    client-{0}.password; et ca.pem, pour vérifier celui du SCC.",
                    pair.number
                ),
            ),
            Item::Preshared { public_key, .. } => (
                format!(
                    "the preshared key of your WireGuard key {public_key}.\n    Put it into the tunnel's configuration as PresharedKey, under [Peer]."
                ),
                format!(
                    "la clé prépartagée de votre clé WireGuard {public_key}.\n    Mettez-la dans la configuration du tunnel comme PresharedKey, sous [Peer]."
                ),
            ),
            Item::Token { not_after, .. } => (
                format!(
                    "your enrolment token: a configuration file of curl (partner kit, section 9).\n    It brings one key a certificate, inside your tunnel, until {not_after}."
                ),
                format!(
                    "votre jeton d'inscription : un fichier de configuration de curl (trousse, section 9).\n    Il apporte un certificat à une seule clé, dans votre tunnel, jusqu'au {not_after}."
                ),
            ),
        };
        en.extend(["  ", &file, "\n    ", &english, "\n"]);
        fr.extend(["  ", &file, "\n    ", &french, "\n"]);
    }
    let (name, gateway) = (&connection.server_name, &connection.gateway_addresses.ipv4);
    let verify = "openssl verify -CAfile CSC-ROOT.pem -untrusted manifest.pem manifest.pem
    openssl dgst -sha256 -verify <(openssl x509 -in manifest.pem -pubkey -noout) -signature manifest.sig manifest.txt
    sha256sum -c manifest.txt";
    format!(
        "Secrets for {partner}\n\n\
         CSC has made these for you. Nobody else can read them: the bundle was encrypted to your own key. That CSC made it you verify\n\
         with CSC's root certificate, which you had before, and not with ca.pem here:\n\n    {verify}\n\n{en}\n\
         Keep them where only root can read, and tell your contact at CSC that you have them, with the SHA-256 of the bundle\n\
         (sha256sum bundle.age). CSC then removes its copy of the bundle; what is lost afterwards is made anew, not again.\n\
         Your server name is {name}; the gateway's address for you is {gateway}.\n\n\
         --------\n\n\
         Secrets pour {partner}\n\n\
         Le SCC les a créés pour vous. Personne d'autre ne peut les lire : l'envoi a été chiffré pour votre propre clé. Qu'il vient du\n\
         SCC, vérifiez-le avec le certificat racine du SCC, que vous aviez déjà, et non avec ca.pem ci-joint :\n\n    {verify}\n\n{fr}\n\
         Gardez-les là où seul root peut lire, et dites à votre interlocuteur au SCC que vous les avez, avec le SHA-256 de l'envoi\n\
         (sha256sum bundle.age). Le SCC supprime alors sa copie; ce qui se perd ensuite est refait, et non redonné.\n\
         Votre nom de serveur est {name}; l'adresse de la passerelle pour vous est {gateway}.\n"
    )
}

/// The tunnel's configuration for wg-quick.
pub fn wg_quick(private: &str, preshared: Option<&str>, connection: &Connection) -> Content {
    let Connection { endpoint, gateway_public_keys, partner_addresses, gateway_addresses, .. } = connection;
    let gateway = gateway_public_keys.first().map(String::as_str).unwrap_or_default();
    let shared = preshared.map(|key| format!("PresharedKey = {key}\n")).unwrap_or_default();
    let text = format!(
        "[Interface]\nPrivateKey = {private}\nAddress = {}/31, {}/127\nMTU = 1380\n\n\
         [Peer]\nPublicKey = {gateway}\n{shared}Endpoint = {endpoint}\nAllowedIPs = {}/32, {}/128\nPersistentKeepalive = 25\n",
        partner_addresses.ipv4, partner_addresses.ipv6, gateway_addresses.ipv4, gateway_addresses.ipv6
    );
    text.into()
}

/// Key and chain as PKCS#12 under `alias`, in what OpenSSL 3 and Java (8u301 and later) read: PBES2 with AES-256-CBC, and a MAC with
/// SHA-256.
pub fn keystore(alias: &str, key: &str, chain: &str, password: &str) -> Result<Content, Error> {
    let key: Vec<u8> = ca::blocks(key).into_iter().flatten().collect();
    let certificates: Result<Vec<_>, _> = ca::blocks(chain).iter().map(|der| Certificate::from_der(der)).collect();
    let mut store = KeyStore::new();
    let local = Sha256::digest(&key);
    store.add_entry(alias, KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new(key, local, certificates?)));
    Ok(Content(store.writer(password).write()?))
}

/// What lies in a bundle, file by file, for `sha256sum -c`, and CSC's signature over it (ECDSA P-256 with SHA-256, in DER) with the
/// signer's chain. The first line is no statement's, so that neither passes for the other.
pub fn manifest(
    partner: &str,
    files: &[(String, Content)],
    signer: &Signer,
    now: Timestamp,
) -> Result<[(String, Content); 3], Error> {
    let mut text = format!("# Liaison bundle for {partner}, made {now}\n");
    for (name, Content(bytes)) in files {
        text.extend([hex::encode(Sha256::digest(bytes)).as_str(), "  ", name, "\n"]);
    }
    let signature = signer.sign(text.as_bytes())?;
    Ok([
        ("manifest.txt".to_owned(), text.into()),
        ("manifest.sig".to_owned(), Content(signature)),
        ("manifest.pem".to_owned(), signer.chain.clone().into()),
    ])
}

/// The files as a tar archive, readable by their owner only.
pub fn pack(files: &[(String, Content)], now: Timestamp) -> Result<Vec<u8>, Error> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, Content(bytes)) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now.as_second()).unwrap_or_default());
        archive.append_data(&mut header, name, bytes.as_slice())?;
    }
    Ok(archive.into_inner()?)
}

/// Encrypts to every recipient, in armour. age takes its randomness itself.
pub fn seal(recipients: &[String], bytes: &[u8]) -> Result<String, Error> {
    let recipients: Result<Vec<_>, _> = recipients.iter().map(|text| recipient(text)).collect();
    let recipients = recipients.map_err(std::io::Error::other)?;
    let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(recipients).map_err(std::io::Error::other)?;
    let mut sealed = Vec::new();
    let armour = age::armor::ArmoredWriter::wrap_output(&mut sealed, age::armor::Format::AsciiArmor)?;
    let mut writer = encryptor.wrap_output(armour)?;
    writer.write_all(bytes)?;
    writer.finish()?.finish()?;
    Ok(String::from_utf8(sealed).map_err(std::io::Error::other)?)
}

#[cfg(test)]
#[path = "contents_tests.rs"]
mod tests;
