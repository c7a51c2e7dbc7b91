//! A partner: keys of its own, its network namespace with wireguard-go, curl.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use liaison_gateway::state::public_key_sha256;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    DOMAIN, Namespace, Process,
    ca::{Ca, Leaf},
    eventually,
    gateway::{PORT, public_key},
    output, patience, run, unique,
};

/// A partner and its tunnel.
pub struct Partner {
    /// Its name.
    pub name: String,
    /// Its slot.
    pub slot: u8,
    /// Its leaf.
    pub leaf: Leaf,
    /// Files for curl: root.pem, chain.pem, key.pem.
    pub files: TempDir,
    /// Its network namespace.
    pub namespace: Namespace,
    device: String,
    private_key: String,
    wireguard: Option<Process>,
    near_link: String,
    /// Where it sends to, if not to the gateway.
    pub endpoint: Option<String>,
    /// How often it keeps its tunnel alive, in seconds; 0: never.
    pub keepalive: u16,
}

impl Partner {
    /// Makes keys, and a link to the gateway's namespace (`None`: this process's own).
    pub fn new(ca: &Ca, name: &str, slot: u8, gateway: Option<&Namespace>) -> Self {
        let namespace = Namespace::new("p");
        let unique = unique();
        let (here, there) = (format!("lgu{unique}"), "up0");
        let mut link = vec!["link", "add", there, "netns", &namespace.0, "type", "veth", "peer", "name", &here];
        if let Some(gateway) = gateway {
            link.extend(["netns", &gateway.0]);
        }
        run("ip", &link);
        let (near, far) = (format!("192.0.2.{}/30", slot * 4 + 1), format!("192.0.2.{}/30", slot * 4 + 2));
        let at = |arguments: &[&str]| {
            let mut all: Vec<&str> = gateway.map(|g| vec!["-n", g.0.as_str()]).unwrap_or_default();
            all.extend_from_slice(arguments);
            run("ip", &all)
        };
        at(&["addr", "add", &near, "dev", &here]);
        at(&["link", "set", &here, "up"]);
        run("ip", &["-n", &namespace.0, "addr", "add", &far, "dev", there]);
        run("ip", &["-n", &namespace.0, "link", "set", there, "up"]);
        let leaf = ca.client(&format!("spiffe://{DOMAIN}/partner/{name}"));
        let files = TempDir::new().unwrap();
        let this = Self {
            name: name.to_owned(),
            slot,
            leaf,
            files,
            namespace,
            device: format!("wg{unique}"),
            private_key: run("wg", &["genkey"]).trim().to_owned(),
            wireguard: None,
            near_link: here.clone(),
            endpoint: None,
            keepalive: 5,
        };
        this.write("root.pem", &ca.root);
        this.write("chain.pem", &this.leaf.chain);
        this.write("key.pem", &this.leaf.key);
        this
    }

    /// Writes a file for curl.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The gateway's address for this partner, and its own.
    pub fn addresses(&self) -> (String, String) {
        (format!("100.72.9.{}", self.slot * 2), format!("100.72.9.{}", self.slot * 2 + 1))
    }

    /// The same of IPv6.
    pub fn addresses_v6(&self) -> (String, String) {
        (format!("fd4c:6961:6973::9{:02x}", self.slot * 2), format!("fd4c:6961:6973::9{:02x}", self.slot * 2 + 1))
    }

    /// Its server name.
    pub fn server_name(&self) -> String {
        format!("{}.{DOMAIN}", self.name)
    }

    /// Its spec, without status.
    pub fn object(&self, namespace: &str) -> Value {
        json!({
            "apiVersion": "federation.csc-scc.gc.ca/v1alpha1",
            "kind": "PartnerConnection",
            "metadata": {"name": self.name, "namespace": namespace},
            "spec": {
                "partner": {"type": "PoliceService", "jurisdiction": "CA-BC", "name": {"en": "A", "fr": "A"}, "timeZone": "America/Vancouver"},
                "agreementRef": {"name": "bc-2003"},
                "share": {"fieldGroups": ["identity"], "population": {"anyOf": [{"municipalities": ["5915022"]}]}},
                "credentials": {
                    "keyCustody": "Partner",
                    "wireGuard": {"publicKeys": [public_key(&self.private_key)]},
                    "certificate": {"signingRequests": [self.leaf.request]},
                },
            },
        })
    }

    /// What the operator would grant it.
    pub fn status(&self, gateway_key: &str) -> Value {
        let (v4, v6) = (self.addresses(), self.addresses_v6());
        json!({
            "observedGeneration": 1,
            "authorizedUntil": "2200-01-01T00:00:00Z",
            "connection": {
                "endpoint": "gateway.example:51820",
                "gatewayPublicKeys": [gateway_key],
                "partnerAddresses": {"ipv4": v4.1, "ipv6": v6.1},
                "gatewayAddresses": {"ipv4": v4.0, "ipv6": v6.0},
                "serverName": self.server_name(),
                "caBundle": "",
            },
            "wireGuardKeys": [public_key(&self.private_key)],
            "wireGuardKeysSeen": [{"publicKey": public_key(&self.private_key), "firstSeen": "2020-01-01T00:00:00Z"}],
            "certificates": [{
                "keyFirstSeen": "2020-01-01T00:00:00Z",
                "sha256": self.leaf.sha256,
                "publicKeySha256": public_key_sha256(&self.leaf.request).unwrap(),
                "chain": self.leaf.chain,
                "notBefore": "2020-01-01T00:00:00Z",
                "notAfter": "2200-01-01T00:00:00Z",
            }],
        })
    }

    /// Spec and status.
    pub fn granted(&self, gateway_key: &str) -> Value {
        let mut object = self.object("liaison-partners");
        object["status"] = self.status(gateway_key);
        object
    }

    /// Brings its tunnel up, as wg-quick would, but with routes to the whole pool, to try what must not work.
    pub fn connect(&mut self, gateway_key: &str, port: u16) {
        let device = self.device.clone();
        let process = self
            .namespace
            .command("wireguard-go")
            .args(["-f", &device])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.wireguard = Some(Process(process.unwrap()));
        let socket = PathBuf::from(format!("/var/run/wireguard/{device}.sock"));
        eventually("wireguard-go is up", Duration::from_secs(10), || socket.exists());
        self.configure(gateway_key, port);
        for address in [format!("{}/32", self.addresses().1), format!("{}/128", self.addresses_v6().1)] {
            self.ip(&["addr", "add", &address, "dev", &device]);
        }
        self.ip(&["link", "set", &device, "mtu", "1380", "up"]);
        self.ip(&["route", "add", "100.72.9.0/24", "dev", &device]);
        self.ip(&["route", "add", "fd4c:6961:6973::/112", "dev", &device]);
    }

    /// Sets its peer; it forgets its sessions.
    pub fn configure(&self, gateway_key: &str, port: u16) {
        self.configure_with(gateway_key, port, None);
    }

    /// The same, with a preshared key.
    pub fn configure_with(&self, gateway_key: &str, port: u16, preshared: Option<&str>) {
        let preshared = preshared.map(|key| format!("PresharedKey = {}\n", key.trim())).unwrap_or_default();
        let endpoint = self.endpoint.clone().unwrap_or_else(|| format!("192.0.2.{}:{port}", self.slot * 4 + 1));
        let conf = self.write(
            "wg.conf",
            &format!(
                "[Interface]\nPrivateKey = {}\n[Peer]\nPublicKey = {gateway_key}\nEndpoint = {endpoint}\n\
                 AllowedIPs = 100.72.9.0/24, fd4c:6961:6973::/112\nPersistentKeepalive = {}\n{preshared}",
                self.private_key, self.keepalive,
            ),
        );
        let mut command = self.namespace.command("wg");
        assert!(command.args(["setconf", &self.device]).arg(conf).status().unwrap().success());
    }

    /// The gateway's end of the link to it.
    pub fn near_link(&self) -> &str {
        &self.near_link
    }

    /// Its private key.
    pub fn private_key(&self) -> &str {
        &self.private_key
    }

    /// Changes its private key, as its administrator would: its peer and its addresses stay.
    pub fn set_key(&mut self, private: &str) {
        private.trim().clone_into(&mut self.private_key);
        let file = self.write("private", &self.private_key);
        self.wg(&["private-key", file.to_str().unwrap()]);
    }

    /// The same, with the preshared key that comes with it.
    pub fn set_keys(&mut self, gateway_key: &str, private: &str, preshared: Option<&str>) {
        private.trim().clone_into(&mut self.private_key);
        let (file, shared) = (self.write("private", &self.private_key), self.write("shared", preshared.unwrap_or("")));
        let (file, shared) = (file.to_str().unwrap(), shared.to_str().unwrap());
        self.wg(&["private-key", file, "peer", gateway_key, "preshared-key", shared]);
    }

    /// Changes the port that it sends from.
    pub fn set_port(&self, port: u16) {
        self.wg(&["listen-port", &port.to_string()]);
    }

    fn wg(&self, arguments: &[&str]) {
        let mut command = self.namespace.command("wg");
        assert!(command.args(["set", &self.device]).args(arguments).status().unwrap().success());
    }

    /// Changes the address that it sends from, as a new lease would. The gateway needs a route to it.
    pub fn set_outer_address(&self, address: &str) {
        self.ip(&["addr", "flush", "dev", "up0", "scope", "global"]);
        self.ip(&["addr", "add", &format!("{address}/32"), "dev", "up0"]);
        self.ip(&["route", "replace", &format!("192.0.2.{}/32", self.slot * 4 + 1), "dev", "up0", "src", address]);
    }

    /// The default port.
    pub fn connect_default(&mut self, gateway_key: &str) {
        self.connect(gateway_key, PORT);
    }

    fn ip(&self, arguments: &[&str]) {
        let mut all = vec!["-n", &self.namespace.0];
        all.extend_from_slice(arguments);
        run("ip", &all);
    }

    /// Another address on its tunnel device.
    pub fn spoof(&self, address: &str) {
        self.ip(&["addr", "add", &format!("{address}/32"), "dev", &self.device]);
    }

    /// Where the gateway hears it from.
    pub fn outer_endpoint(&self) -> String {
        let output = self.namespace.command("wg").args(["show", &self.device, "listen-port"]).output().unwrap();
        let port = String::from_utf8(output.stdout).unwrap();
        format!("192.0.2.{}:{}", self.slot * 4 + 2, port.trim())
    }

    /// Has what it sends go nowhere, or to the gateway again; what is sent to it arrives all the time.
    pub fn mute(&self, muted: bool) {
        let gateway = format!("192.0.2.{}", self.slot * 4 + 1);
        if muted {
            // Nobody's.
            self.ip(&["neigh", "replace", &gateway, "lladdr", "02:00:00:00:00:01", "dev", "up0", "nud", "permanent"]);
        } else {
            self.ip(&["neigh", "del", &gateway, "dev", "up0"]);
        }
    }

    /// Bytes that have come to it by its tunnel.
    pub fn received(&self) -> u64 {
        let output = self.namespace.command("wg").args(["show", &self.device, "transfer"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Takes it away again.
    pub fn unspoof(&self, address: &str) {
        self.ip(&["addr", "del", &format!("{address}/32"), "dev", &self.device]);
    }

    /// Sends what is for an address through the tunnel, whether the gateway takes it or not.
    pub fn route_through(&self, address: &str) {
        let output = self.namespace.command("wg").args(["show", &self.device, "peers"]).output().unwrap();
        let peer = String::from_utf8(output.stdout).unwrap();
        self.wg(&["peer", peer.trim(), "allowed-ips", "0.0.0.0/0,::/0"]);
        self.ip(&["route", "replace", &format!("{address}/32"), "dev", &self.device]);
    }

    /// Unix time of its last handshake; 0 for never.
    pub fn last_handshake(&self) -> u64 {
        let output = self.namespace.command("wg").args(["show", &self.device, "latest-handshakes"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().nth(1).and_then(|t| t.parse().ok()).unwrap_or_default()
    }

    /// curl with its certificate to its own address; `arguments` come after, and so override.
    pub fn curl(&self, path: &str, arguments: &[&str]) -> Output {
        self.curl_as(&self.server_name(), &self.addresses().0, path, arguments)
    }

    /// The same by IPv6.
    pub fn curl_v6(&self, path: &str, arguments: &[&str]) -> Output {
        self.curl_as(&self.server_name(), &format!("[{}]", self.addresses_v6().0), path, arguments)
    }

    /// curl to another name or address.
    pub fn curl_as(&self, name: &str, address: &str, path: &str, arguments: &[&str]) -> Output {
        self.curl_command(name, address, path)
            .args(["--cert", &self.file("chain.pem"), "--key", &self.file("key.pem")])
            .args(patient(arguments))
            .output()
            .unwrap()
    }

    /// curl without a client certificate.
    pub fn curl_anonymous(&self, path: &str, arguments: &[&str]) -> Output {
        self.curl_command(&self.server_name(), &self.addresses().0, path).args(patient(arguments)).output().unwrap()
    }

    /// What `openssl s_client` says of a connection on which it waits a second for tickets.
    pub fn openssl(&self) -> String {
        self.openssl_with("", "")
    }

    /// The same with some arguments more, after a line of input.
    pub fn openssl_with(&self, line: &str, arguments: &str) -> String {
        // The end of its input ends it, so that comes a second later.
        self.openssl_fed(&format!("sleep 0.5; echo '{line}'; sleep 0.5"), arguments)
    }

    /// The same, fed by a shell script.
    pub fn openssl_fed(&self, feed: &str, arguments: &str) -> String {
        let script = format!(
            "({feed}) | openssl s_client -connect {}:443 -servername {name} -verify_hostname {name} \
             -CAfile root.pem -cert chain.pem -cert_chain chain.pem -key key.pem {arguments} 2>&1",
            self.addresses().0,
            name = self.server_name(),
        );
        let mut command = self.namespace.command("sh");
        let output =
            command.args(["-c", &script]).current_dir(self.files.path()).stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A curl that goes on until it is ended, writing to a file.
    pub fn download(&self, arguments: &[&str]) -> (Process, PathBuf) {
        self.download_as(&self.server_name(), &self.addresses().0, arguments)
    }

    /// The same from another name or address.
    pub fn download_as(&self, name: &str, address: &str, arguments: &[&str]) -> (Process, PathBuf) {
        let file = self.files.path().join(format!("download{}", unique()));
        let mut command = self.curl_command(name, address, "/stream");
        command.args(["--cert", &self.file("chain.pem"), "--key", &self.file("key.pem"), "-N"]);
        command.args(patient(&["-m", "60", "-o"]));
        let process = command.arg(&file).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        (Process(process), file)
    }

    fn curl_command(&self, name: &str, address: &str, path: &str) -> std::process::Command {
        let mut command = self.namespace.command("curl");
        command.args(patient(&["-sS", "-m", "4"])).args(["--cacert", &self.file("root.pem")]);
        command.args(["--resolve", &format!("{name}:443:{address}"), &format!("https://{name}{path}")]);
        command.stdin(Stdio::null());
        command
    }

    /// A shell script in its network namespace, in the directory of its files, which ends at the first failure. `$name` is
    /// its server name; `est PATH ARGUMENT...` is curl to the enrolment service of its gateway.
    pub fn sh(&self, script: &str) -> Output {
        let (name, address) = (self.server_name(), self.addresses().0);
        let head = format!(
            "set -eu; name={name} gateway={address}\n\
             est() {{ path=$1; shift; curl -sS -m 30 --cacert root.pem --resolve $name:8443:$gateway \"$@\" \
             https://$name:8443/.well-known/est/$path; }}\n"
        );
        let mut command = self.namespace.command("sh");
        command.args(["-c", &(head + script)]).current_dir(self.files.path()).stdin(Stdio::null()).output().unwrap()
    }

    /// The path of one of its files.
    pub fn file(&self, name: &str) -> String {
        self.files.path().join(name).to_str().unwrap().to_owned()
    }
}

/// The JSON that InfoPol answered.
pub fn answer(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("no answer: {text} {} {}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// For how long from now bytes still come by these downloads; it is looked for a second and a half.
pub fn still_coming(downloads: &[(Process, PathBuf)]) -> Duration {
    let asked = Instant::now();
    let mut last = (0, asked);
    while asked.elapsed() < Duration::from_millis(1500) * patience() {
        let total = downloads.iter().map(|(_, file)| size(file)).sum();
        if total != last.0 {
            last = (total, Instant::now());
        }
        sleep(Duration::from_millis(5));
    }
    last.1 - asked
}

/// curl's arguments, in which what follows `-m` is how many seconds it may take.
fn patient(arguments: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    if let Some(at) = arguments.iter().position(|argument| *argument == "-m") {
        let seconds: u32 = arguments[at + 1].parse().unwrap();
        all[at + 1] = (seconds * patience()).to_string();
    }
    all
}

/// Size of a file.
pub fn size(path: &PathBuf) -> u64 {
    std::fs::metadata(path).map(|m| m.len()).unwrap_or_default()
}

/// So that a namespace's processes are gone before it is.
impl Drop for Partner {
    fn drop(&mut self) {
        self.wireguard = None;
        let _ = std::io::stderr().flush();
        let _ = output("ip", &["-n", &self.namespace.0, "link", "delete", "up0"]);
    }
}
