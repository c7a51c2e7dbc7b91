//! Group commit: of the tasks that want the same thing of the hub, whichever gets the connection first does it for all that
//! have queued meanwhile.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;
use tokio_postgres::Client;

use crate::{
    connect::{Lanes, Target},
    error::{Error, Side},
};

/// What can be done for several tasks at once.
pub(crate) trait Together: Send + Sized {
    /// The most that are done at once.
    const MOST: usize;
    /// How long whoever does it waits for others to join.
    const LINGER: Duration;

    /// Does it; the answers are in the order of the items. An error is all items'.
    fn run(client: &mut Client, items: &[Self]) -> impl Future<Output = Result<Vec<Result<(), Error>>, Error>> + Send;
}

type Queued<T> = (T, oneshot::Sender<Result<(), Error>>);

/// A queue, and the one connection over which it is worked off.
#[derive(Debug)]
pub(crate) struct Group<T> {
    queue: Mutex<Vec<Queued<T>>>,
    lanes: Lanes,
}

impl<T: Together> Group<T> {
    pub(crate) fn new(target: &Target) -> Self {
        Self { queue: Mutex::new(Vec::new()), lanes: Lanes::new(target.clone(), 1) }
    }

    /// Has `item` done, by this task or by another.
    pub(crate) async fn submit(&self, item: T) -> Result<(), Error> {
        let (done, mut outcome) = oneshot::channel();
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push((item, done));
        loop {
            tokio::select! {
                biased;
                // Who had it in hand ended before it was done: it is not known whether it was.
                outcome = &mut outcome => return outcome.unwrap_or_else(|_| Err(unknown())),
                lane = self.lanes.lane("") => {
                    if !T::LINGER.is_zero() {
                        tokio::time::sleep(T::LINGER).await;
                    }
                    let (items, senders): (Vec<T>, Vec<_>) = self.take().into_iter().unzip();
                    if items.is_empty() {
                        // Another has ours in hand: its answer is under way.
                        drop(lane);
                        return outcome.await.unwrap_or_else(|_| Err(unknown()));
                    }
                    let result = match lane {
                        Ok(mut lane) => {
                            let result = match lane.client() {
                                Ok(client) => T::run(client, &items).await,
                                Err(error) => Err(error),
                            };
                            if result.is_err() {
                                lane.discard();
                            }
                            result
                        }
                        Err(error) => Err(error),
                    };
                    // A task that is gone does not want its answer.
                    match result {
                        Ok(answers) => {
                            for (sender, answer) in senders.into_iter().zip(answers) {
                                let _ = sender.send(answer);
                            }
                        }
                        Err(error) => {
                            for sender in senders {
                                let _ = sender.send(Err(error.clone()));
                            }
                        }
                    }
                }
            }
        }
    }

    fn take(&self) -> Vec<Queued<T>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let count = queue.len().min(T::MOST);
        queue.drain(..count).collect()
    }
}

fn unknown() -> Error {
    Error::Unreachable {
        side: Side::Hub,
        detail: "the task that wrote for several ended before it could say whether it had".to_owned(),
    }
}
