//! A router that translates addresses between a partner and the gateway, and is given another address now and then.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::support::Namespace;

/// The router, until it is dropped.
pub struct Relay {
    outside: Arc<Mutex<Arc<UdpSocket>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

fn open(namespace: &Namespace, address: &str) -> UdpSocket {
    let socket = namespace.within(|| UdpSocket::bind(address).unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    socket
}

impl Relay {
    /// In the partner's namespace: the partner sends to `inside`, the gateway hears it from `outside`.
    pub fn start(namespace: &Namespace, inside: &str, outside: &str, gateway: SocketAddr) -> Self {
        let inside = Arc::new(open(namespace, inside));
        let outside = Arc::new(Mutex::new(Arc::new(open(namespace, &format!("{outside}:0")))));
        let stop = Arc::new(AtomicBool::new(false));
        let partner = Arc::new(Mutex::new(None));
        let going = {
            let (inside, outside, stop, partner) =
                (Arc::clone(&inside), Arc::clone(&outside), Arc::clone(&stop), Arc::clone(&partner));
            std::thread::spawn(move || {
                let mut packet = [0; 2048];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((length, from)) = inside.recv_from(&mut packet) else { continue };
                    *partner.lock().unwrap() = Some(from);
                    let socket = Arc::clone(&outside.lock().unwrap());
                    let _ = socket.send_to(&packet[..length], gateway);
                }
            })
        };
        let coming = {
            let (outside, stop) = (Arc::clone(&outside), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut packet = [0; 2048];
                while !stop.load(Ordering::Relaxed) {
                    let socket = Arc::clone(&outside.lock().unwrap());
                    let Ok((length, _)) = socket.recv_from(&mut packet) else { continue };
                    let Some(to) = *partner.lock().unwrap() else { continue };
                    let _ = inside.send_to(&packet[..length], to);
                }
            })
        };
        Self { outside, stop, threads: vec![going, coming] }
    }

    /// Another address; what still comes to the old one is lost.
    pub fn move_to(&self, namespace: &Namespace, address: &str) {
        let socket = Arc::new(open(namespace, &format!("{address}:0")));
        *self.outside.lock().unwrap() = socket;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
