//! H: the API server is away, and a partner is revoked meanwhile. How long from its return until nothing more gets through.

use std::{thread, time::Duration};

use crate::{
    results::Results,
    support::outage::{Away, Stage},
};

/// Each way of being away at once, `short` times (at most 30) for some seconds and once for `long` seconds.
pub fn measure(results: &mut Results, short: usize, long: usize) {
    let (short, long) = (u8::try_from(short).unwrap(), Duration::from_secs(long as u64));
    let ways = [(Away::Refusing, "refuses", 1), (Away::Silent, "does not answer", 32)];
    let taken = thread::scope(|scope| {
        let one = |(away, said, slot): (Away, &'static str, u8)| {
            scope.spawn(move || {
                let mut stage = Stage::new(slot, short + 1);
                let mut took = Vec::new();
                for round in 0..short {
                    took.push(stage.outage(away, Duration::from_secs(4 + 3 * u64::from(round))).as_secs_f64());
                    println!(
                        "H: away {} of {short} times, it {said}; the last took {:.3} s",
                        round + 1,
                        took[took.len() - 1]
                    );
                }
                (said, took, stage.outage(away, long).as_secs_f64())
            })
        };
        ways.map(one).map(|thread| thread.join().unwrap())
    });
    for (said, short, after_long) in taken {
        let name = format!("H revoked while the API server {said}, from its return to the last byte");
        results.times(&name, &short);
        results.add(&format!("{name}, after {} s", long.as_secs()), after_long, "s", 1, None);
    }
}
