//! The kernel's packet filter as nftables takes it and Debian's `nft` shows it. Needs root, and nftables in the kernel; WireGuard's links
//! need not be there.

// Clippy takes only functions marked #[test] for tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::IpAddr;

use liaison_gateway::tunnel::kernel::{
    netlink::Conversation,
    rules::{self, Counted},
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use support::Namespace;

const LINKS: [&str; 2] = ["liaison0", "liaison0-2"];

/// Not a test: asks for the table in the network namespace in which the other starts it, and prints what there is then.
#[test]
#[ignore = "started by the other test"]
fn filter_process() {
    let mut kernel = Conversation::open(NETLINK_NETFILTER).unwrap();
    let show = |what: &str| println!("{what}\n{}", support::run("nft", &["list", "ruleset"]));
    let [one, six, two, gone]: [IpAddr; 4] =
        ["100.72.0.3", "fd4c:6961:6973::3", "100.72.0.5", "100.72.0.7"].map(|text| text.parse().unwrap());
    for _ in 0..2 {
        // The second time there is one.
        kernel.ask::<Counted>(rules::table(&LINKS)).unwrap();
    }
    kernel.ask::<Counted>(rules::partners(&[one, six, gone], &[]).unwrap()).unwrap();
    kernel.ask::<Counted>(rules::partners(&[two], &[gone]).unwrap()).unwrap();
    // All or nothing: who is not there cannot be taken away, and nobody comes with that.
    let refused = kernel.ask::<Counted>(rules::partners(&["100.72.0.9".parse().unwrap()], &[gone]).unwrap());
    assert!(refused.unwrap_err().is_missing());
    let counted: Vec<Counted> = kernel.ask(rules::counted()).unwrap();
    assert_eq!(counted.iter().filter(|Counted(found)| found.is_some_and(|(_, packets)| packets == 0)).count(), 4);
    let many: Vec<IpAddr> = (0..5_000_u32).map(|n| IpAddr::V4((0x0a00_0001 + 2 * n).into())).collect();
    kernel.ask::<Counted>(rules::partners(&many, &[]).unwrap()).unwrap();
    kernel.ask::<Counted>(rules::partners(&[], &many).unwrap()).unwrap();
    show("TABLE");
    kernel.ask::<Counted>(rules::no_table()).unwrap();
    show("NOTHING");
}

#[test]
fn nftables_has_the_rules_that_were_meant() {
    let namespace = Namespace::new("f");
    let mut command = namespace.command(std::env::current_exe().unwrap().to_str().unwrap());
    let output = command.args(["filter_process", "--ignored", "--exact", "--nocapture"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    let (table, nothing) = text.split_once("TABLE\n").unwrap().1.split_once("NOTHING\n").unwrap();
    assert_eq!(nothing.lines().next(), Some(""), "{nothing}");
    assert_eq!(in_order(table), in_order(include_str!("rules.nft")));
}

/// One line, with the elements of each set in the order of their names: the kernel's own is another each time.
fn in_order(shown: &str) -> String {
    let text = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut sets = text.split("elements = { ").map(str::to_owned);
    let first = sets.next();
    let sorted = sets.map(|set| {
        let (elements, rest) = set.split_once(" }").unwrap();
        let mut elements: Vec<&str> = elements.split(", ").collect();
        elements.sort_unstable();
        format!("{} }}{rest}", elements.join(", "))
    });
    first.into_iter().chain(sorted).collect::<Vec<_>>().join("elements = { ")
}
