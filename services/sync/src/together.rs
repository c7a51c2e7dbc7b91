//! Group commit: what several tasks want of the hub queues for one connection, and goes together once that is free.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;
use tokio_postgres::Client;

use crate::{
    connect::{Lanes, Target, within},
    error::{Error, Side},
};

/// What can be done for several tasks at once.
pub(crate) trait Together: Send + Sync + Sized {
    /// The most that are done at once.
    const MOST: usize;
    /// How long whoever does it waits for others to join.
    const LINGER: Duration;

    /// Does it; the answers are in the order of the items. An error is all items'.
    fn run(client: &mut Client, items: &[Self]) -> impl Future<Output = Result<Vec<Result<(), Error>>, Error>> + Send;
}

/// The longest that one transaction for several may take.
const LONGEST: Duration = Duration::from_secs(60);

type Queued<T> = (T, oneshot::Sender<Result<(), Error>>);

/// A queue, and the one connection over which it is worked off.
#[derive(Debug)]
pub(crate) struct Group<T>(Arc<Line<T>>);

#[derive(Debug)]
struct Line<T> {
    queue: Mutex<Vec<Queued<T>>>,
    lanes: Lanes,
}

impl<T: Together + 'static> Group<T> {
    pub(crate) fn new(target: &Target) -> Self {
        Self(Arc::new(Line { queue: Mutex::new(Vec::new()), lanes: Lanes::new(target.clone(), 1) }))
    }

    /// Has `item` done, with those of others. It is also done when nobody waits for it any more.
    pub(crate) async fn submit(&self, item: T) -> Result<(), Error> {
        let (done, outcome) = oneshot::channel();
        self.0.queue().push((item, done));
        // A task of its own: who gives up waiting does not end what others wait for.
        tokio::spawn(Line::work_off(self.0.clone()));
        outcome.await.unwrap_or_else(|_| Err(unknown()))
    }
}

impl<T: Together> Line<T> {
    /// Does what has queued by the time that the connection is free; nothing, if another had it in hand meanwhile.
    async fn work_off(self: Arc<Self>) {
        let mut lane = self.lanes.lane("").await;
        if self.queue().is_empty() {
            return;
        }
        if !T::LINGER.is_zero() {
            tokio::time::sleep(T::LINGER).await;
        }
        let (items, senders): (Vec<T>, Vec<_>) = self.take().into_iter().unzip();
        let work = async {
            let lane = lane.as_mut().map_err(|error| error.clone())?;
            let answers = T::run(lane.client()?, &items).await?;
            lane.keep();
            Ok(answers)
        };
        let done = within(LONGEST, Side::Hub, work).await;
        let answers = done.unwrap_or_else(|error| vec![Err(error); senders.len()]);
        for (sender, answer) in senders.into_iter().zip(answers) {
            // A task that is gone does not want its answer.
            let _ = sender.send(answer);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Vec<Queued<T>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Queued<T>> {
        let mut queue = self.queue();
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
